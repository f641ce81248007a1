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
};

// Fetches a tile into the second-level cache bit by bit, while another one is worked on: left to itself, the
// processor would wait for memory at the beginning of each tile, and have memory idle in the rest.
template <class T>
class Ahead {
  const Tile<T> &tile;
  const int num_strips, key_stride;
  int span = 0, strip = 0;

 public:
  Ahead(const Call &call, const Tile<T> &next)
      : tile(next), num_strips(int(call.head_dim)), key_stride(call.layout == kRows ? int(call.page_size) : 0) {}

  // A strip is as many bytes as there are positions, of the keys or of the values.
  void fetch(int strips) {
    for (; strips > 0 && span < tile.num_spans; --strips) {
      const Span<T> &at = tile.spans[span];
      lines(at.keys + int64_t(strip) * (key_stride ? key_stride : at.count), at.count);
      lines(at.values + int64_t(strip) * at.count, at.count);
      if (++strip == num_strips) strip = 0, ++span;
    }
  }

  // Of how many calls of `fetch` each is to fetch how much.
  int share(int calls) const { return (num_strips * tile.num_spans + calls - 1) / calls; }

 private:
  static void lines(const T *p, int count) {
    for (int i = 0; i < count; i += 64 / int(sizeof(T))) __builtin_prefetch(p + i, 0, 2);
  }
};

}  // namespace parrot
