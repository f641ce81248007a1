// Vectors of floats, as wide as the instruction set this file is compiled for; conversions and 2^x.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define PARROT_AVX512 1
#endif
#if defined(PARROT_AVX512) && defined(__AVX512BF16__)
#define PARROT_BF16_DOT 1
#endif

// Sums must be in registers: loops over them are unrolled before the compiler decides where they live.
#define PARROT_UNROLL _Pragma("GCC unroll 16")

namespace parrot {

#if defined(PARROT_AVX512)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t Ints __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Words __attribute__((vector_size(kWidth * 4)));
typedef uint16_t Halves __attribute__((vector_size(kWidth * 2)));
typedef float VecLoose __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef uint16_t HalvesLoose __attribute__((vector_size(kWidth * 2), aligned(2), may_alias));

struct Bf16 { uint16_t bits; };
struct Fp16 { uint16_t bits; };

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

inline Vec splat(float x) {
#if defined(PARROT_AVX512)
  return Vec(_mm512_set1_ps(x));
#elif defined(__AVX2__)
  return Vec(_mm256_set1_ps(x));
#else
  return Vec{x, x, x, x};
#endif
}

inline Vec load(const float *p) { return *reinterpret_cast<const VecLoose *>(p); }

inline Words widen(const uint16_t *p) {
  return __builtin_convertvector(Halves(*reinterpret_cast<const HalvesLoose *>(p)), Words);
}

inline Vec load(const Bf16 *p) { return Vec(widen(&p->bits) << 16); }

inline Vec load(const Fp16 *p) {
#if defined(PARROT_AVX512)
  return Vec(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))));
#elif defined(__F16C__)
  return Vec(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
#else
  // Shifted into place, a half is a float whose exponent is 112 too small; that holds for
  // subnormal halves as well. Infinity and NaN need the full exponent.
  Words bits = widen(&p->bits);
  Words rest = (bits & 0x7fffu) << 13;
  Words value = Words(Vec(rest) * splat(0x1p112f));
  Words special = Words(rest >= 0x0f800000u) & 0x7f800000u;
  return Vec(value | special | ((bits & 0x8000u) << 16));
#endif
}

inline void store(float *p, Vec x) { *reinterpret_cast<VecLoose *>(p) = x; }

inline void store(Bf16 *p, Vec x) {
  Words bits = Words(x);
  Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  Words is_nan = Words(x != x);
  rounded = (rounded & ~is_nan) | (is_nan & 0x7fc0u);
  *reinterpret_cast<HalvesLoose *>(p) = __builtin_convertvector(rounded, Halves);
}

inline uint16_t half_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint32_t sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (rest >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // rounds to more than 65504
  if (rest < 0x38800000u) {  // subnormal: adding 0.5 leaves the half's bits at the end, rounded to even
    float magnitude;
    std::memcpy(&magnitude, &rest, 4);
    magnitude += 0.5f;
    uint32_t sum;
    std::memcpy(&sum, &magnitude, 4);
    return uint16_t(sign | (sum - 0x3f000000u));
  }
  rest += 0xc8000fffu + ((rest >> 13) & 1u);
  return uint16_t(sign | (rest >> 13));
}

inline void store(Fp16 *p, Vec x) {
#if defined(PARROT_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtps_ph(__m512(x), 0));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph(__m256(x), 0));
#else
  for (int i = 0; i < kWidth; ++i) p[i].bits = half_bits(x[i]);
#endif
}

inline Vec larger(Vec a, Vec b) {
#if defined(PARROT_AVX512)
  return Vec(_mm512_max_ps(__m512(a), __m512(b)));
#elif defined(__AVX2__)
  return Vec(_mm256_max_ps(__m256(a), __m256(b)));
#else
  return a > b ? a : b;
#endif
}

inline float sum_of(Vec x) {
#if defined(PARROT_AVX512)
  return _mm512_reduce_add_ps(__m512(x));
#else
  for (int step = kWidth / 2; step; step /= 2)
    for (int i = 0; i < step; ++i) x[i] += x[i + step];
  return x[0];
#endif
}

inline float max_of(Vec x) {
#if defined(PARROT_AVX512)
  return _mm512_reduce_max_ps(__m512(x));
#else
  float best = x[0];
  for (int i = 1; i < kWidth; ++i) best = x[i] > best ? x[i] : best;
  return best;
#endif
}

// 2^x for x <= 0 and -inf. Minimax polynomials of 2^f (relative error 7.5e-8 with five terms above the
// constant, 2.6e-6 with four: enough where the result is rounded to bfloat16 anyway).
template <bool kShort>
inline Vec exp2_of(Vec x) {
#if defined(PARROT_AVX512)
  Vec f = Vec(_mm512_reduce_ps(__m512(x), 1));  // x - floor(x); 0 for -inf
  Vec p;
  if (kShort) {
    p = splat(0.013534167781472206f) * f + splat(0.052011460065841675f);
    p = p * f + splat(0.2414427548646927f);
    p = p * f + splat(0.6930038332939148f);
    p = p * f + splat(1.0000026226043701f);
  } else {
    p = splat(0.0018775766948238015f) * f + splat(0.00898933969438076f);
    p = p * f + splat(0.05582631751894951f);
    p = p * f + splat(0.24015361070632935f);
    p = p * f + splat(0.6931530833244324f);
    p = p * f + splat(0.9999999403953552f);
  }
  return Vec(_mm512_scalef_ps(__m512(p), __m512(x)));
#else
  Ints keep = x >= splat(-126.f);
  x = larger(x, splat(-126.f));
  Vec shifted = x + splat(12582912.f);  // 1.5 * 2^23: the integer nearest to x is in the low bits
  Vec f = x - (shifted - splat(12582912.f));
  Vec p = splat(0.0013276472454890609f) * f + splat(0.009675540961325169f);
  p = p * f + splat(0.05550713092088699f);
  p = p * f + splat(0.24022120237350464f);
  p = p * f + splat(0.6931469440460205f);
  p = p * f + splat(1.0000001192092896f);
  return Vec((Ints(p) + Ints(Words(shifted) << 23)) & keep);
#endif
}

// tanh by the exponential of -2|x|, which cannot overflow. Near 0 the difference 1 - e would lose digits
// relative to tanh, not relative to the cap it is multiplied with, which is what counts for scores.
inline Vec tanh_of(Vec x) {
  Words sign = Words(x) & 0x80000000u;
  Vec magnitude = Vec(Words(x) & 0x7fffffffu);
  Vec e = exp2_of<false>(magnitude * splat(-2.f * kLog2E));
  return Vec(Words((splat(1.f) - e) / (splat(1.f) + e)) | sign);
}

}  // namespace parrot
