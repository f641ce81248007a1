// Products of bfloat16 with float32 sums (VDPBF16PS): twice the multiplications of float32 FMA.
// The instruction multiplies pairs along the depth, so B must have rows k and k + 1 interleaved:
// panels of 16 columns, [depth/2][16][2] each. A row-major B is interleaved while it is loaded.
#pragma once
#include "gemm.h"

#if defined(PARROT_BF16_DOT)
namespace parrot {

inline __m512i pair_at(const Bf16 *a) {
  int32_t pair;
  std::memcpy(&pair, a, 4);
  return _mm512_set1_epi32(pair);
}

template <int R, int C, bool kAdd>
inline void panel_product(const Bf16 *a, int64_t lda, const Bf16 *b, int64_t panel, int pairs, float *c,
                          int64_t ldc, const float *factors) {
  __m512 sums[R][C];
  PARROT_UNROLL
  for (int r = 0; r < R; ++r)
    PARROT_UNROLL
    for (int j = 0; j < C; ++j)
      sums[r][j] = kAdd ? _mm512_mul_ps(_mm512_loadu_ps(c + r * ldc + j * 16), _mm512_set1_ps(factors[r]))
                        : _mm512_setzero_ps();
  for (int k = 0; k < pairs; ++k) {
    __m512i row[C];
    PARROT_UNROLL
    for (int j = 0; j < C; ++j) row[j] = _mm512_loadu_si512(b + j * panel + k * 32);
    PARROT_UNROLL
    for (int r = 0; r < R; ++r) {
      __m512i x = pair_at(a + r * lda + 2 * k);
      PARROT_UNROLL
      for (int j = 0; j < C; ++j) sums[r][j] = _mm512_dpbf16_ps(sums[r][j], (__m512bh)x, (__m512bh)row[j]);
    }
  }
  PARROT_UNROLL
  for (int r = 0; r < R; ++r)
    PARROT_UNROLL
    for (int j = 0; j < C; ++j) _mm512_storeu_ps(c + r * ldc + j * 16, sums[r][j]);
}

template <int R, bool kAdd>
void panel_columns(const Bf16 *a, int64_t lda, const Bf16 *b, int64_t panel, int pairs, float *c, int64_t ldc,
                   int width, const float *factors) {
  constexpr int kMost = R <= 2 ? 8 : 4;
  int n = 0;
  for (; n + kMost * 16 <= width; n += kMost * 16)
    panel_product<R, kMost, kAdd>(a, lda, b + n / 16 * panel, panel, pairs, c + n, ldc, factors);
  if constexpr (kMost > 4)
    for (; n + 64 <= width; n += 64)
      panel_product<R, 4, kAdd>(a, lda, b + n / 16 * panel, panel, pairs, c + n, ldc, factors);
  for (; n + 32 <= width; n += 32)
    panel_product<R, 2, kAdd>(a, lda, b + n / 16 * panel, panel, pairs, c + n, ldc, factors);
  for (; n < width; n += 16)
    panel_product<R, 1, kAdd>(a, lda, b + n / 16 * panel, panel, pairs, c + n, ldc, factors);
}

// C[rows][width] from A[rows][2 * pairs] and panels `panel` elements apart; width is a multiple of 16.
template <bool kAdd>
void multiply_panels(int rows, const Bf16 *a, int64_t lda, const Bf16 *b, int64_t panel, int pairs, float *c,
                     int64_t ldc, int width, const float *factors) {
  switch (rows) {
    case 1: return panel_columns<1, kAdd>(a, lda, b, panel, pairs, c, ldc, width, factors);
    case 2: return panel_columns<2, kAdd>(a, lda, b, panel, pairs, c, ldc, width, factors);
    case 4: return panel_columns<4, kAdd>(a, lda, b, panel, pairs, c, ldc, width, factors);
    default: return panel_columns<6, kAdd>(a, lda, b, panel, pairs, c, ldc, width, factors);
  }
}

struct Interleaved { __m512i first, second; };

// Two rows of 32 values as two vectors of 16 pairs.
inline Interleaved interleave(__m512i upper, __m512i lower) {
  const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                                         6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i second = _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55, 23,
                                          54, 22, 53, 21, 52, 20, 51, 19, 50, 18, 49, 17, 48, 16);
  return {_mm512_permutex2var_epi16(upper, first, lower), _mm512_permutex2var_epi16(upper, second, lower)};
}

// 32 values, or 16 and zeros.
template <bool kWhole>
inline __m512i values_at(const Bf16 *p) {
  if constexpr (kWhole) return _mm512_loadu_si512(p);
  return _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}

template <int R, int C>
inline void add_pair(__m512 (&sums)[R][2 * C], const Bf16 *a, int64_t lda, const Interleaved (&rows)[C]) {
  PARROT_UNROLL
  for (int r = 0; r < R; ++r) {
    __m512i x = pair_at(a + r * lda);
    PARROT_UNROLL
    for (int j = 0; j < C; ++j) {
      sums[r][2 * j] = _mm512_dpbf16_ps(sums[r][2 * j], (__m512bh)x, (__m512bh)rows[j].first);
      sums[r][2 * j + 1] = _mm512_dpbf16_ps(sums[r][2 * j + 1], (__m512bh)x, (__m512bh)rows[j].second);
    }
  }
}

// As multiply_panels for C blocks of 32 columns of a row-major B, or, if not kWhole, one of 16; an odd last row
// counts as followed by zeros.
template <int R, int C, bool kAdd, bool kWhole>
inline void row_product(const Bf16 *a, int64_t lda, const Bf16 *b, int64_t ldb, int depth, float *c, int64_t ldc,
                        const float *factors) {
  constexpr int kColumns = kWhole ? 2 * C : 1;
  __m512 sums[R][2 * C];
  PARROT_UNROLL
  for (int r = 0; r < R; ++r)
    PARROT_UNROLL
    for (int j = 0; j < 2 * C; ++j)
      sums[r][j] = kAdd && j < kColumns
                       ? _mm512_mul_ps(_mm512_loadu_ps(c + r * ldc + j * 16), _mm512_set1_ps(factors[r]))
                       : _mm512_setzero_ps();
  Interleaved rows[C];
  for (int k = 0; k + 1 < depth; k += 2, b += 2 * ldb) {
    PARROT_UNROLL
    for (int j = 0; j < C; ++j)
      rows[j] = interleave(values_at<kWhole>(b + j * 32), values_at<kWhole>(b + ldb + j * 32));
    add_pair<R, C>(sums, a + k, lda, rows);
  }
  if (depth % 2) {
    PARROT_UNROLL
    for (int j = 0; j < C; ++j) rows[j] = interleave(values_at<kWhole>(b + j * 32), _mm512_setzero_si512());
    add_pair<R, C>(sums, a + depth - 1, lda, rows);
  }
  PARROT_UNROLL
  for (int r = 0; r < R; ++r)
    PARROT_UNROLL
    for (int j = 0; j < kColumns; ++j) _mm512_storeu_ps(c + r * ldc + j * 16, sums[r][j]);
}

template <int R, bool kAdd>
void row_columns(const Bf16 *a, int64_t lda, const Bf16 *b, int64_t ldb, int depth, float *c, int64_t ldc,
                 int width, const float *factors) {
  constexpr int kMost = R <= 2 ? 4 : 2;
  int n = 0;
  for (; n + kMost * 32 <= width; n += kMost * 32)
    row_product<R, kMost, kAdd, true>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
  for (; n + 32 <= width; n += 32)
    row_product<R, 1, kAdd, true>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
  if (n < width) row_product<R, 1, kAdd, false>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
}

// As `multiply`, with A and B in bfloat16; width is a multiple of 16. A holds zeros after an odd depth.
template <bool kAdd>
void multiply_rows(int rows, const Bf16 *a, int64_t lda, const Bf16 *b, int64_t ldb, int depth, float *c,
                   int64_t ldc, int width, const float *factors) {
  switch (rows) {
    case 1: return row_columns<1, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
    case 2: return row_columns<2, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
    case 4: return row_columns<4, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
    default: return row_columns<6, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
  }
}

template <bool kWhole>
inline void pack_columns(const Bf16 *b, int64_t ldb, int depth, Bf16 *to, int64_t panel) {
  for (int k = 0; k < depth; k += 2, b += 2 * ldb, to += 32) {
    const __m512i lower = k + 1 < depth ? values_at<kWhole>(b + ldb) : _mm512_setzero_si512();
    Interleaved rows = interleave(values_at<kWhole>(b), lower);
    _mm512_storeu_si512(to, rows.first);
    if (kWhole) _mm512_storeu_si512(to + panel, rows.second);
  }
}

// Row-major `depth` x `width` into panels; an odd last row is followed by zeros.
inline void pack_panels(const Bf16 *b, int64_t ldb, int depth, int width, Bf16 *to, int64_t panel) {
  int n = 0;
  for (; n + 32 <= width; n += 32) pack_columns<true>(b + n, ldb, depth, to + n / 16 * panel, panel);
  if (n < width) pack_columns<false>(b + n, ldb, depth, to + n / 16 * panel, panel);
}

}  // namespace parrot
#endif
