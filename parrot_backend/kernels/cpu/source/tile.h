// A tile: up to kMaxTile consecutive KV positions of one request and one KV head, from one page or several.
#pragma once
#include <algorithm>
#include <limits>

#include "call.h"
#include "gemm_bf16.h"

namespace parrot {

constexpr int kMaxTile = 128;
constexpr float kNever = -std::numeric_limits<float>::infinity();

inline int rounded16(int count) { return (count + 15) / 16 * 16; }

// `count` positions that lie in one page; in the tile they begin at column `column`, a multiple of 16.
template <class T>
struct Span {
  const T *keys, *values;
  int column, count;
};

template <class T>
struct Tile {
  Span<T> spans[kMaxTile / 16];
  int num_spans, start, count, width;  // width: count rounded up to 16

  // Positions [from, min(from + most, end)) of table row `row`; from is a multiple of 16.
  void gather(const Call &call, int row, int head, int from, int most, int end) {
    const int32_t *ids = call.block_table + row * call.table_stride;
    const int size = int(call.page_size);
    num_spans = count = 0;
    start = from;
    while (count < most && from < end) {
      int inside = from % size;
      int take = std::min({size - inside, most - count, end - from});
      const T *page = static_cast<const T *>(call.pages) + ids[from / size] * call.page_stride + head * call.head_stride;
      const T *values = page + size * call.head_dim;
      if (call.layout == kPairs)
        spans[num_spans++] = {page + inside * call.head_dim, values + inside * 16, count, take};
      else
        spans[num_spans++] = {page + inside, values + inside * call.head_dim, count, take};
      from += take;
      count += take;
    }
    width = rounded16(count);
  }
};

template <class T>
void prefetch(const T *p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(reinterpret_cast<const char *>(p) + i, 0, 2);
}

}  // namespace parrot
