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

// A unit of work: an item, or none if it is negative, and a KV head.
struct UnitId {
  int item, head;
};

// `count` positions that lie in one page; in the tile they begin at column `column`, a multiple of 16.
template <class T>
struct Span {
  const T *keys, *values;
  int column, count;

  // How many of them are among the first `most` of the tile.
  int first(int most) const { return std::min(count, most - column); }
};

template <class T>
struct Tile {
  Span<T> spans[kMaxTile / 16];
  int num_spans, start, count;

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
  }

  // Where a unit begins; no position if there is no unit. Nothing either with a window, before which nothing is read.
  void gather_first(const Call &call, UnitId unit, int most) {
    num_spans = count = 0;
    if (unit.item < 0 || call.window > 0) return;
    const int32_t *item = call.items + int64_t(unit.item) * kItemColumns;
    gather(call, item[kTableRow], unit.head, item[kKvStart], most, item[kKvEnd]);
  }
};

}  // namespace parrot
