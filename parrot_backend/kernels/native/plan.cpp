// The C interface of the native planner: make a plan, ask its sizes, copy it out.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "batch.h"
#include "prefix_tree.h"
#include "work_plan.h"

#define PARROT_PUBLIC extern "C" __attribute__((visibility("default")))

namespace {

// Kept between plans only so that memory is not asked for again.
struct Workspace {
  parrot::Batch batch;
  parrot::PrefixTree tree;
  parrot::WorkPlan plan;
};

// What planner.py then says in words; the order is that of its checks.
enum Result : int32_t { kDone = 0, kBadBatch = 1, kOutOfMemory = 2 };

bool read_batch(parrot::Batch& batch, const int32_t* query_start, const int32_t* seq_lens,
                const uint8_t* may_share) {
  const int64_t count = batch.num_requests;
  batch.query_start.assign(query_start, query_start + count + 1);
  batch.seq_lens.assign(seq_lens, seq_lens + count);
  batch.query_lens.resize(count);
  batch.full_pages.resize(count);
  if (query_start[0] != 0) return false;
  for (int64_t i = 0; i < count; ++i) {
    int64_t lens = batch.query_start[i + 1] - batch.query_start[i];
    if (lens < 0 || seq_lens[i] < 0) return false;
    if (seq_lens[i] == 0) lens = 0;
    const int64_t before = seq_lens[i] - lens;
    if (before < 0) return false;
    if (lens > 0 && parrot::ceil_div(seq_lens[i], batch.page_size) > batch.num_columns) return false;
    batch.query_lens[i] = lens;
    batch.full_pages[i] = lens > 0 && (!may_share || may_share[i]) ? before / batch.page_size : 0;
  }
  return true;
}

template <typename T>
int32_t* append(int32_t* out, const std::vector<T>& from) {
  const size_t size_bytes = from.size() * sizeof(T);
  if (size_bytes) std::memcpy(out, from.data(), size_bytes);
  return out + size_bytes / sizeof(int32_t);
}

}  // namespace

PARROT_PUBLIC void* parrot_plan_new() { return new (std::nothrow) Workspace(); }

PARROT_PUBLIC void parrot_plan_free(void* workspace) { delete static_cast<Workspace*>(workspace); }

// table: rows of `row_stride` int32; may_share: a byte per request, or null. costs: kv_token, row,
// item, partial. limits: requests, columns, row stride, page size, workers, max_rows,
// min_chunk_tokens. sizes, out: items, rows, query tokens, slots, shared tokens, plain tokens.
PARROT_PUBLIC int32_t parrot_plan_make(void* workspace, const int32_t* table,
                                       const int32_t* query_start, const int32_t* seq_lens,
                                       const uint8_t* may_share, const double* costs,
                                       const int64_t* limits, int64_t* sizes) try {
  auto& [batch, tree, plan] = *static_cast<Workspace*>(workspace);
  batch.table = table;
  batch.num_requests = limits[0];
  batch.num_columns = limits[1];
  batch.row_stride = limits[2];
  batch.page_size = limits[3];
  if (!read_batch(batch, query_start, seq_lens, may_share)) return kBadBatch;
  const parrot::Costs cost{costs[0], costs[1], costs[2], costs[3], limits[5], limits[6]};
  parrot::TreeBuilder(batch, tree).build();
  parrot::fold(tree, batch, cost);
  parrot::WorkBuilder(batch, tree, cost, plan).build(limits[4]);
  sizes[0] = static_cast<int64_t>(plan.items.size());
  sizes[1] = static_cast<int64_t>(plan.tokens.size());
  sizes[2] = static_cast<int64_t>(plan.positions.size());
  sizes[3] = static_cast<int64_t>(plan.slots.size());
  sizes[4] = plan.shared_tokens;
  sizes[5] = plan.plain_tokens;
  return kDone;
} catch (const std::bad_alloc&) {
  return kOutOfMemory;
}

// out: items, tokens, positions, slot_ptr, slots, worker_ptr, one after another.
PARROT_PUBLIC void parrot_plan_copy(const void* workspace, int32_t* out) {
  const parrot::WorkPlan& plan = static_cast<const Workspace*>(workspace)->plan;
  out = append(out, plan.items);
  out = append(out, plan.tokens);
  out = append(out, plan.positions);
  out = append(out, plan.slot_ptr);
  out = append(out, plan.slots);
  append(out, plan.worker_ptr);
}
