// Two ways to multiply a block of rows with the first `count` positions of a tile. Both convert or interleave a tile
// once when many rows use it ("packed"), and else while it is loaded. Meanwhile the next tile is fetched.
#pragma once
#include <vector>

#include "ahead.h"

namespace parrot {

// Bytes of the packed keys of a tile, whose place its packed values take: with what passes through beside them, they
// stay in a first-level cache of 48 KiB.
constexpr int kPackedBytes = 32768;

inline int packed_tile(int head_dim, int element_bytes) {
  return std::clamp(kPackedBytes / (head_dim * element_bytes) / 32 * 32, 32, kMaxTile);
}

// Float32 arithmetic, for all types and instruction sets.
template <class T>
struct FloatPath {
  using Stored = T;
  using Factor = float;  // of queries and probabilities
  static constexpr bool kShortExp = false;
  static constexpr bool kConverts = !std::is_same_v<T, float>;
  const int head_dim, page_size;
  const bool packed;
  const int most;
  float *keys = nullptr, *values = nullptr;  // [head_dim][most], [most][head_dim]

  FloatPath(const Call &call, int rows)
      : head_dim(int(call.head_dim)), page_size(int(call.page_size)), packed(kConverts && rows > 2 * kMaxBlock),
        most(packed ? packed_tile(head_dim, 4) : kMaxTile) {}
  int64_t packed_floats() const { return packed ? int64_t(most) * head_dim : 0; }
  void place(float *at) { keys = values = at; }

  void load_query(const T *from, float *to) const {
    for (int d = 0; d < head_dim; d += kWidth) store(to + d, load(from + d));
  }

  void pack_keys(const Tile<T> &tile) {
    for (int i = 0; i < tile.num_spans; ++i) {
      const Span<T> &span = tile.spans[i];
      for (int d = 0; d < head_dim; ++d)
        for (int n = 0; n < span.count; n += kWidth)
          store(keys + d * most + span.column + n, load(span.keys + d * page_size + n));
    }
  }

  void pack_values(const Tile<T> &tile) {
    for (int i = 0; i < tile.num_spans; ++i) {
      const Span<T> &span = tile.spans[i];
      const int64_t size = int64_t(span.count) * head_dim;
      for (int64_t n = 0; n < size; n += kWidth)
        store(values + span.column * head_dim + n, load(span.values + n));
    }
  }

  void scores(const Tile<T> &tile, int count, int rows, const float *query, float *to, Ahead<T> &ahead) const {
    if (packed) {
      ahead.fetch();
      return multiply<false>(rows, query, head_dim, keys, most, head_dim, to, kMaxTile, rounded16(count), nullptr);
    }
    for (int i = 0; i < tile.num_spans && tile.spans[i].column < count; ++i) {
      const Span<T> &span = tile.spans[i];
      ahead.fetch();
      multiply<false>(rows, query, head_dim, span.keys, page_size, head_dim, to + span.column, kMaxTile,
                      rounded16(span.first(count)), nullptr);
    }
  }

  void add_values(const Tile<T> &tile, int count, int rows, const float *weights, float *to, const float *factors,
                  Ahead<T> &ahead) const {
    static constexpr float kOnes[kMaxBlock] = {1, 1, 1, 1, 1, 1};
    if (packed) {
      ahead.fetch();
      return multiply<true>(rows, weights, kMaxTile, values, head_dim, count, to, head_dim, head_dim, factors);
    }
    for (int i = 0; i < tile.num_spans && tile.spans[i].column < count; ++i) {
      const Span<T> &span = tile.spans[i];
      ahead.fetch();
      multiply<true>(rows, weights + span.column, kMaxTile, span.values, head_dim, span.first(count), to, head_dim,
                     head_dim, i ? kOnes : factors);
    }
  }
};

#if defined(PARROT_BF16_DOT)
// Bfloat16 products with float32 sums. Products of queries and keys are exact; probabilities are rounded to
// bfloat16, as in the kernels for matrix units, and their sum (the denominator) is not.
template <bool kPanels>
struct DotPath {
  using Stored = Bf16;
  using Factor = Bf16;
  static constexpr bool kShortExp = true;
  const int head_dim, page_size;
  const bool packed;
  const int most;
  const int64_t key_panel, value_panel;  // elements between panels of 16 columns
  Bf16 *keys = nullptr, *values = nullptr;

  DotPath(const Call &call, int rows)
      : head_dim(int(call.head_dim)), page_size(int(call.page_size)), packed(!kPanels && rows > 3 * kMaxBlock),
        most(packed ? packed_tile(head_dim, 2) : kMaxTile), key_panel(head_dim * 16),
        value_panel((kPanels ? page_size : most) * 16) {}
  // Panels of the cache hold whatever was there before after an odd last position, so that pair is copied.
  int64_t packed_floats() const { return packed ? int64_t(most) * head_dim / 2 : head_dim; }
  void place(float *at) {
    keys = reinterpret_cast<Bf16 *>(at);
    values = keys;
  }

  void load_query(const Bf16 *from, Bf16 *to) const { std::memcpy(to, from, head_dim * 2); }

  void pack_keys(const Tile<Bf16> &tile) {
    for (int i = 0; i < tile.num_spans; ++i) {
      const Span<Bf16> &span = tile.spans[i];
      pack_panels(span.keys, page_size, head_dim, rounded16(span.count), keys + span.column / 16 * key_panel,
                  key_panel);
    }
  }

  void pack_values(const Tile<Bf16> &tile) {
    for (int i = 0; i < tile.num_spans; ++i) {
      const Span<Bf16> &span = tile.spans[i];
      pack_panels(span.values, head_dim, span.count, head_dim, values + span.column * 16, value_panel);
    }
  }

  void scores(const Tile<Bf16> &tile, int count, int rows, const Bf16 *query, float *to, Ahead<Bf16> &ahead) const {
    if (packed) {
      ahead.fetch();
      return multiply_panels<false>(rows, query, head_dim, keys, key_panel, head_dim / 2, to, kMaxTile,
                                    rounded16(count), nullptr);
    }
    for (int i = 0; i < tile.num_spans && tile.spans[i].column < count; ++i) {
      const Span<Bf16> &span = tile.spans[i];
      const int width = rounded16(span.first(count));
      ahead.fetch();
      if constexpr (kPanels)
        multiply_panels<false>(rows, query, head_dim, span.keys, key_panel, head_dim / 2, to + span.column, kMaxTile,
                               width, nullptr);
      else
        multiply_rows<false>(rows, query, head_dim, span.keys, page_size, head_dim, to + span.column, kMaxTile, width,
                             nullptr);
    }
  }

  void add_values(const Tile<Bf16> &tile, int count, int rows, const Bf16 *weights, float *to, const float *factors,
                  Ahead<Bf16> &ahead) {
    static constexpr float kOnes[kMaxBlock] = {1, 1, 1, 1, 1, 1};
    if (packed) {
      ahead.fetch();
      return multiply_panels<true>(rows, weights, kMaxTile, values, value_panel, (count + 1) / 2, to, head_dim,
                                   head_dim, factors);
    }
    for (int i = 0; i < tile.num_spans && tile.spans[i].column < count; ++i) {
      const Span<Bf16> &span = tile.spans[i];
      const float *scale = i ? kOnes : factors;
      const Bf16 *weight = weights + span.column;
      const int depth = span.first(count);
      ahead.fetch();
      if constexpr (kPanels) {
        multiply_panels<true>(rows, weight, kMaxTile, span.values, value_panel, depth / 2, to, head_dim, head_dim,
                              scale);
        if (depth % 2) add_odd(span, depth / 2, rows, weight, to);
      } else {
        multiply_rows<true>(rows, weight, kMaxTile, span.values, head_dim, depth, to, head_dim, head_dim, scale);
      }
    }
  }

  void add_odd(const Span<Bf16> &span, int last, int rows, const Bf16 *weight, float *to) {
    static constexpr float kOnes[kMaxBlock] = {1, 1, 1, 1, 1, 1};
    for (int n = 0; n < head_dim; n += 16) {
      const Bf16 *pairs = span.values + n / 16 * value_panel + last * 32;
      for (int i = 0; i < 16; ++i) keys[2 * (n + i)] = pairs[2 * i], keys[2 * (n + i) + 1] = Bf16{0};
    }
    multiply_panels<true>(rows, weight + 2 * last, kMaxTile, keys, 32, 1, to, head_dim, head_dim, kOnes);
  }
};
#endif

}  // namespace parrot
