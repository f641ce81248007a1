// Writing results: of a row that has one partial at once, of the others by combining partials.
#pragma once
#include "softmax.h"

namespace parrot {

// Output of one (query token, head) from a normalised vector and its log-sum-exp in base 2. A sink is one more
// score, without a value: it takes its share of the mass.
template <class T>
void write_output(const Call &call, int token, int head, const float *values, float lse2) {
  T *to = static_cast<T *>(call.output) + token * call.output_token_stride + head * call.output_head_stride;
  float share = 1;
  if (call.sinks) {
    const float sink = call.sinks[head] * kLog2E, top = std::max(sink, lse2);
    const float total = top + std::log2(std::exp2(sink - top) + std::exp2(lse2 - top));
    share = std::exp2(lse2 - total);
    lse2 = total;
  }
  for (int d = 0; d < call.head_dim; d += kWidth) store(to + d, load(values + d) * splat(share));
  if (call.lse) call.lse[token * call.num_heads + head] = lse2 * kLn2;
}

template <class T>
void write_nothing(const Call &call, int token) {
  for (int head = 0; head < call.num_heads; ++head) {
    T *to = static_cast<T *>(call.output) + token * call.output_token_stride + head * call.output_head_stride;
    std::memset(to, 0, sizeof(T) * call.head_dim);
    if (call.lse) call.lse[token * call.num_heads + head] = call.sinks ? call.sinks[head] : kNever;
  }
}

template <class T>
void merge_token(const Call &call, int token, float *sum) {
  const int first = call.slot_ptr[token], last = call.slot_ptr[token + 1];
  if (last == first) return write_nothing<T>(call, token);
  if (last == first + 1) return;  // written by its item
  const int64_t heads = call.num_heads, dim = call.head_dim;
  for (int head = 0; head < heads; ++head) {
    float top = kNever, mass = 0;
    for (int i = first; i < last; ++i) top = std::max(top, call.part_lse[call.slots[i] * heads + head]);
    for (int64_t d = 0; d < dim; d += kWidth) store(sum + d, Vec{});
    for (int i = first; i < last && top != kNever; ++i) {
      const int64_t at = call.slots[i] * heads + head;
      const float weight = std::exp2(call.part_lse[at] - top);
      mass += weight;
      if (weight == 0) continue;
      const float *part = call.part_output + at * dim;
      for (int64_t d = 0; d < dim; d += kWidth) store(sum + d, load(sum + d) + load(part + d) * splat(weight));
    }
    const Vec scale = splat(mass > 0 ? 1 / mass : 0.f);
    for (int64_t d = 0; d < dim; d += kWidth) store(sum + d, load(sum + d) * scale);
    write_output<T>(call, token, head, sum, mass > 0 ? top + std::log2(mass) : kNever);
  }
}

}  // namespace parrot
