// One unit of work: an item of the plan for one KV head.
#pragma once
#include "merge.h"
#include "paths.h"

namespace parrot {

// Bytes of queries, weights and sums that are kept at once: they share the second-level cache with pages on their way.
constexpr int64_t kRowBytes = 192 * 1024;

struct Scratch {
  std::vector<float> memory;
  std::vector<int32_t> bounds;
  std::vector<Running> running;

  // `count` floats, aligned to a cache line.
  float *floats(int64_t count) {
    if (int64_t(memory.size()) < count + 16) memory.resize(count + 16);
    auto address = reinterpret_cast<uintptr_t>(memory.data());
    return reinterpret_cast<float *>((address + 63) & ~uintptr_t(63));
  }
};

inline int64_t in_lines(int64_t floats) { return (floats + 15) / 16 * 16; }

// Runs some rows of an item. A row is a query token and a head of the KV head's group.
template <class Path>
class RowBlock {
  using T = typename Path::Stored;
  using F = typename Path::Factor;
  const Call &call;
  const int32_t *item;
  const int head, group, first_row, num_rows, padded, dim;
  Path path;
  F *query, *weights;              // [padded][dim], [padded][kMaxTile]
  float *sums, *scores, *factors;  // [padded][dim], [kMaxBlock][kMaxTile], [padded]
  int32_t *from, *to;              // a row sees positions [from, to)
  Running *running;

 public:
  RowBlock(const Call &c, const int32_t *item_, int head_, int first, int rows, Scratch &scratch)
      : call(c), item(item_), head(head_), group(int(c.num_heads / c.num_kv_heads)), first_row(first), num_rows(rows),
        padded(rows / kMaxBlock * kMaxBlock + block_rows(rows % kMaxBlock)), dim(int(c.head_dim)), path(c, rows) {
    const int64_t row_floats = in_lines(int64_t(padded) * dim), tile_floats = kMaxBlock * kMaxTile;
    const int64_t query_floats = in_lines(int64_t(padded) * dim * sizeof(F) / 4);
    const int64_t weight_floats = in_lines(int64_t(padded) * kMaxTile * sizeof(F) / 4);
    float *at = scratch.floats(row_floats + query_floats + tile_floats + weight_floats + in_lines(padded) +
                               path.packed_floats());
    sums = at, at += row_floats;
    query = reinterpret_cast<F *>(at), at += query_floats;
    scores = at, at += tile_floats;
    weights = reinterpret_cast<F *>(at), at += weight_floats;
    factors = at, at += in_lines(padded);
    path.place(at);
    scratch.bounds.resize(2 * padded);
    from = scratch.bounds.data(), to = from + padded;
    scratch.running.assign(padded, Running{});
    running = scratch.running.data();
    std::memset(sums, 0, row_floats * 4);
  }

  // Meanwhile the beginning of what the thread does next is fetched.
  void run(UnitId next) {
    int begin = item[kKvEnd], end = item[kKvStart];
    for (int r = 0; r < num_rows; ++r) {
      load_row(r);
      begin = std::min(begin, from[r]), end = std::max(end, to[r]);
    }
    const int start = std::max(begin / 16 * 16, int(item[kKvStart])), blocks = (num_rows + kMaxBlock - 1) / kMaxBlock;
    Tile<T> tiles[2];
    tiles[0].gather(call, item[kTableRow], head, start, path.most, end);
    for (int i = 0; tiles[i].count; i ^= 1) {
      const Tile<T> &tile = tiles[i];
      Tile<T> &coming = tiles[i ^ 1], beyond;
      coming.gather(call, item[kTableRow], head, tile.start + tile.count, path.most, end);
      if (!coming.count) beyond.gather_first(call, next, path.most);
      Ahead<T> ahead(call, coming.count ? coming : beyond, blocks * (path.packed ? 3 : 2 * tile.num_spans + 1));
      if (path.packed) path.pack_keys(tile);
      for (int r = 0; r < num_rows; r += kMaxBlock) weigh(tile, r, ahead);
      if (path.packed) path.pack_values(tile);
      for (int r = 0; r < num_rows; r += kMaxBlock) add_values(tile, r, ahead);
    }
    for (int r = 0; r < num_rows; ++r) finish_row(r);
  }

 private:
  int token_of(int r) const { return call.tokens[item[kRowStart] + (first_row + r) / group]; }
  int head_of(int r) const { return head * group + (first_row + r) % group; }

  void load_row(int r) {
    const int token = token_of(r), position = call.positions[token];
    const T *source = static_cast<const T *>(call.query) + token * call.query_token_stride +
                      head_of(r) * call.query_head_stride;
    path.load_query(source, query + int64_t(r) * dim);
    from[r] = item[kKvStart], to[r] = item[kKvEnd];
    if (item[kFlags] & kCausal) to[r] = std::min(to[r], position + 1);
    if (call.window > 0) from[r] = int32_t(std::max<int64_t>(from[r], position - call.window + 1));
  }

  // How many positions of a tile some row of a block sees, with those before them; 0 if none.
  int seen_of(const Tile<T> &tile, int start, int count) const {
    bool seen = false;
    int most = 0;
    for (int r = start; r < start + count; ++r) {
      seen |= from[r] < tile.start + tile.count && to[r] > tile.start;
      most = std::max(most, std::min(to[r] - tile.start, tile.count));
    }
    return seen ? most : 0;
  }

  // Computes the weights of a block of rows.
  void weigh(const Tile<T> &tile, int start, Ahead<T> &ahead) {
    const int count = std::min(kMaxBlock, num_rows - start), most = seen_of(tile, start, count);
    if (!most) return;
    path.scores(tile, most, block_rows(count), query + int64_t(start) * dim, scores, ahead);
    ahead.fetch();
    const Scores how{float(call.scale), float(call.softcap)};
    for (int i = 0; i < count; ++i) {
      const int r = start + i;
      const int first = std::max(from[r] - tile.start, 0), last = std::min(to[r] - tile.start, most);
      factors[r] = soften<Path::kShortExp>(scores + i * kMaxTile, weights + int64_t(r) * kMaxTile, most, first, last,
                                           how, running + r);
    }
  }

  void add_values(const Tile<T> &tile, int start, Ahead<T> &ahead) {
    const int count = std::min(kMaxBlock, num_rows - start), most = seen_of(tile, start, count);
    if (!most) return;
    path.add_values(tile, most, block_rows(count), weights + int64_t(start) * kMaxTile, sums + int64_t(start) * dim,
                    factors + start, ahead);
  }

  void finish_row(int r) {
    const int token = token_of(r), of = head_of(r);
    float *sum = sums + int64_t(r) * dim;
    const float mass = running[r].mass;
    const Vec scale = splat(mass > 0 ? 1 / mass : 0.f);
    for (int d = 0; d < dim; d += kWidth) store(sum + d, load(sum + d) * scale);
    const float lse2 = mass > 0 ? running[r].top + std::log2(mass) : kNever;
    if (call.slot_ptr[token + 1] == call.slot_ptr[token] + 1) return write_output<T>(call, token, of, sum, lse2);
    const int64_t slot = (item[kSlotStart] + (first_row + r) / group) * call.num_heads + of;
    std::memcpy(call.part_output + slot * dim, sum, dim * 4);
    call.part_lse[slot] = lse2;
  }
};

template <class Path>
void run_unit(const Call &call, UnitId unit, UnitId next, Scratch &scratch) {
  using F = typename Path::Factor;
  const int32_t *item = call.items + int64_t(unit.item) * kItemColumns;
  const int rows = int(item[kNumRows] * (call.num_heads / call.num_kv_heads));
  const int64_t row_bytes = call.head_dim * (4 + sizeof(F)) + kMaxTile * sizeof(F);
  const int most = int(std::max<int64_t>(kRowBytes / row_bytes / kMaxBlock, 1)) * kMaxBlock;
  for (int first = 0; first < rows; first += most) {
    const int count = std::min(most, rows - first);
    RowBlock<Path>(call, item, unit.head, first, count, scratch).run(first + count < rows ? unit : next);
  }
}

}  // namespace parrot
