// Fetches a tile into the second-level cache bit by bit, while another one is worked on: left to itself, the
// processor would wait for memory at the beginning of each tile, and have memory idle in the rest.
#pragma once
#include "tile.h"

namespace parrot {

template <class T>
class Ahead {
  // `count` strips of `length` elements, `stride` elements apart.
  struct Area {
    const T *from;
    int64_t count, length, stride;
  };

  const Tile<T> &tile;
  const int64_t head_dim, page_size;
  const bool is_rows;
  int pace = 0, next_area = 0;
  Area area{};
  const char *at = nullptr;
  int64_t left = 0;  // lines of the strip

 public:
  // Of how many calls of `fetch` each is to fetch its share.
  Ahead(const Call &call, const Tile<T> &next, int calls)
      : tile(next), head_dim(call.head_dim), page_size(call.page_size), is_rows(call.layout == kRows) {
    int64_t lines = 0;
    for (int i = 0; i < 2 * tile.num_spans; ++i) lines += area_of(i).count * lines_of(area_of(i).length);
    pace = int((lines + calls - 1) / calls);
  }

  void fetch() {
    for (int64_t wanted = pace; wanted > 0 && (left > 0 || advance());) {
      const int64_t now = std::min(wanted, left);
      for (int64_t i = 0; i < now; ++i) __builtin_prefetch(at + i * 64, 0, 2);
      at += now * 64, left -= now, wanted -= now;
    }
  }

 private:
  static int64_t lines_of(int64_t elements) { return (elements * int64_t(sizeof(T)) + 63) / 64; }

  // Keys of a span, then its values.
  Area area_of(int index) const {
    const Span<T> &span = tile.spans[index / 2];
    const bool is_keys = index % 2 == 0;
    if (is_keys != is_rows) return {is_keys ? span.keys : span.values, 1, span.count * head_dim, 0};
    const int64_t strips = is_rows ? head_dim : head_dim / 16, unit = is_rows ? 1 : 16;
    const T *from = is_keys ? span.keys : span.values;
    if (lines_of(span.count * unit) < lines_of(page_size * unit))
      return {from, strips, span.count * unit, page_size * unit};
    return {from, 1, strips * page_size * unit, 0};
  }

  bool advance() {
    if (area.count == 0) {
      if (next_area == 2 * tile.num_spans) return false;
      area = area_of(next_area++);
    } else {
      area.from += area.stride;
    }
    --area.count;
    at = reinterpret_cast<const char *>(area.from);
    left = lines_of(area.length);
    return true;
  }
};

}  // namespace parrot
