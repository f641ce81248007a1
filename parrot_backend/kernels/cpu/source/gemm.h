// Register-tiled products C = A B in float32, B row-major and converted on the way in.
// Rows come in blocks of 1, 2, 4 or 6 (`block_rows`): callers pad their buffers to that.
#pragma once
#include "vectors.h"

namespace parrot {

constexpr int kMaxBlock = 6;

// Rows of the next block when `left` are left: padding a block is cheaper than a second pass over B.
inline int block_rows(int left) {
  if (left >= 5) return 6;
  if (left >= 3) return 4;
  return left;
}

#if defined(PARROT_AVX512) || defined(__aarch64__)
constexpr int kWide = 4, kNarrow = 8;  // 32 registers: 6 x 4 or 2 x 8 sums, a row of B, one of A
#else
constexpr int kWide = 2, kNarrow = 4;  // 16 registers
#endif

// With kAdd, C is scaled by `factors` (one for each row) and added to; else it is overwritten.
template <int R, int C, bool kAdd, class B>
inline void product(const float *a, int64_t lda, const B *b, int64_t ldb, int depth, float *c, int64_t ldc,
                    const float *factors) {
  Vec sums[R][C];
  PARROT_UNROLL
  for (int r = 0; r < R; ++r)
    PARROT_UNROLL
    for (int j = 0; j < C; ++j)
      sums[r][j] = kAdd ? load(c + r * ldc + j * kWidth) * splat(factors[r]) : Vec{};
  for (int k = 0; k < depth; ++k) {
    Vec row[C];
    PARROT_UNROLL
    for (int j = 0; j < C; ++j) row[j] = load(b + j * kWidth);
    PARROT_UNROLL
    for (int r = 0; r < R; ++r) {
      Vec x = splat(a[r * lda + k]);
      PARROT_UNROLL
      for (int j = 0; j < C; ++j) sums[r][j] += x * row[j];
    }
    b += ldb;
  }
  PARROT_UNROLL
  for (int r = 0; r < R; ++r)
    PARROT_UNROLL
    for (int j = 0; j < C; ++j) store(c + r * ldc + j * kWidth, sums[r][j]);
}

template <int R, bool kAdd, class B>
void columns(const float *a, int64_t lda, const B *b, int64_t ldb, int depth, float *c, int64_t ldc, int width,
             const float *factors) {
  constexpr int kMost = R <= 2 ? kNarrow : kWide;
  int n = 0;
  for (; n + kMost * kWidth <= width; n += kMost * kWidth)
    product<R, kMost, kAdd>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
  if constexpr (kMost > 4)
    for (; n + 4 * kWidth <= width; n += 4 * kWidth)
      product<R, 4, kAdd>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
  if constexpr (kMost > 2)
    for (; n + 2 * kWidth <= width; n += 2 * kWidth)
      product<R, 2, kAdd>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
  for (; n < width; n += kWidth) product<R, 1, kAdd>(a, lda, b + n, ldb, depth, c + n, ldc, factors);
}

// C[rows][width] from A[rows][depth] and B[depth][width]; width is a multiple of kWidth.
template <bool kAdd, class B>
void multiply(int rows, const float *a, int64_t lda, const B *b, int64_t ldb, int depth, float *c, int64_t ldc,
              int width, const float *factors) {
  switch (rows) {
    case 1: return columns<1, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
    case 2: return columns<2, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
    case 4: return columns<4, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
    default: return columns<6, kAdd>(a, lda, b, ldb, depth, c, ldc, width, factors);
  }
}

}  // namespace parrot
