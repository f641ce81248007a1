// The running softmax of one row. Scores and maxima are in base 2: natural ones times log2(e).
#pragma once
#include "tile.h"

namespace parrot {

struct Running {
  float top = kNever;  // greatest score so far
  float mass = 0;      // sum of 2^(score - top)
};

struct Scores {
  float scale, softcap;  // of raw products; softcap 0: none
};

inline void store_weights(float *to, Vec low, Vec high) {
  store(to, low);
  store(to + kWidth, high);
}

#if defined(PARROT_BF16_DOT)
inline void store_weights(Bf16 *to, Vec low, Vec high) {
  __m512bh both = _mm512_cvtne2ps_pbh(__m512(high), __m512(low));
  std::memcpy(to, &both, sizeof both);
}
#endif

inline void cap(float *scores, int width, const Scores &how) {
  const Vec inner = splat(how.scale / how.softcap), outer = splat(how.softcap * kLog2E);
  for (int n = 0; n < width; n += kWidth) store(scores + n, tanh_of(load(scores + n) * inner) * outer);
}

// Turns raw products into weights 2^(score - top) in `weights`, and zeros outside columns [first, last).
// Returns by what earlier sums must be multiplied. Scores and weights have room for `width` rounded up to 32.
template <bool kShort, class Weight>
float soften(float *scores, Weight *weights, int width, int first, int last, const Scores &how, Running *running) {
  float factor = how.scale * kLog2E;
  const int wide = (width + 31) / 32 * 32;
  if (how.softcap > 0) cap(scores, width, how), factor = 1;
  if (first >= last) {
    for (int n = 0; n < wide; n += 2 * kWidth) store_weights(weights + n, Vec{}, Vec{});
    return 1;
  }
  for (int n = 0; n < first; ++n) scores[n] = kNever;
  for (int n = last; n < wide; ++n) scores[n] = kNever;
  Vec best = load(scores), other = load(scores + kWidth);
  for (int n = 2 * kWidth; n < wide; n += 2 * kWidth) {
    best = larger(best, load(scores + n));
    other = larger(other, load(scores + n + kWidth));
  }
  const float top = std::max(running->top, max_of(larger(best, other)) * factor);
  const float base = top == kNever ? 0.f : top;
  const Vec scale = splat(factor), minus = splat(-base);
  Vec low{}, high{};
  for (int n = 0; n < wide; n += 2 * kWidth) {
    Vec a = exp2_of<kShort>(load(scores + n) * scale + minus);
    Vec b = exp2_of<kShort>(load(scores + n + kWidth) * scale + minus);
    low += a, high += b;
    store_weights(weights + n, a, b);
  }
  const float shrink = running->top == top ? 1.f : std::exp2(running->top - base);
  running->mass = running->mass * shrink + sum_of(low + high);
  running->top = top;
  return shrink;
}

}  // namespace parrot
