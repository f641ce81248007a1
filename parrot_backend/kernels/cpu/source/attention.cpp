// Entry points: checks of what Python hands over, and the threads that share the work.
#include <atomic>
#include <thread>

#include "unit.h"

namespace parrot {
namespace {

// What is wrong, in the order of `FAULTS` in library.py; the item or token is told beside it.
enum Fault : int64_t { kFine, kRowsOutside, kTokenOutside, kTableRowOutside, kRangeOutside, kPageOutside, kSlotOutside,
                       kSlotListOutside };

struct Checked { int64_t fault, index; };

Checked check_items(const Call &call) {
  for (int64_t i = 0; i < call.num_items; ++i) {
    const int32_t *item = call.items + i * kItemColumns;
    const int64_t rows = item[kNumRows], start = item[kKvStart], end = item[kKvEnd];
    if (item[kRowStart] < 0 || rows < 1 || item[kRowStart] + rows > call.num_rows) return {kRowsOutside, i};
    if (item[kTableRow] < 0 || item[kTableRow] >= call.num_requests) return {kTableRowOutside, i};
    if (start < 0 || end <= start || start % call.page_size || end > call.table_width * call.page_size)
      return {kRangeOutside, i};
    if (item[kSlotStart] < 0 || item[kSlotStart] + rows > call.num_slots) return {kSlotOutside, i};
    const int32_t *ids = call.block_table + item[kTableRow] * call.table_stride;
    for (int64_t page = start / call.page_size; page * call.page_size < end; ++page)
      if (ids[page] < 0 || ids[page] >= call.num_pages) return {kPageOutside, i};
  }
  return {kFine, 0};
}

Checked check_tokens(const Call &call) {
  for (int64_t r = 0; r < call.num_rows; ++r)
    if (call.tokens[r] < 0 || call.tokens[r] >= call.num_tokens) return {kTokenOutside, r};
  if (call.slot_ptr[0] != 0 || call.slot_ptr[call.num_tokens] != call.num_slots) return {kSlotListOutside, 0};
  for (int64_t t = 0; t < call.num_tokens; ++t)
    if (call.slot_ptr[t] > call.slot_ptr[t + 1]) return {kSlotListOutside, t};
  for (int64_t s = 0; s < call.num_slots; ++s)
    if (call.slots[s] < 0 || call.slots[s] >= call.num_slots) return {kSlotListOutside, s};
  return {kFine, 0};
}

using Unit = void (*)(const Call &, UnitId, UnitId, Scratch &);
using Merge = void (*)(const Call &, int, float *);

struct Kernel { Unit unit; Merge merge; };

Kernel kernel_for(const Call &call) {
#if defined(PARROT_BF16_DOT)
  if (call.dtype == kBfloat16 && call.layout == kPairs) return {run_unit<DotPath<true>>, merge_token<Bf16>};
  if (call.dtype == kBfloat16) return {run_unit<DotPath<false>>, merge_token<Bf16>};
#else
  if (call.dtype == kBfloat16) return {run_unit<FloatPath<Bf16>>, merge_token<Bf16>};
#endif
  if (call.dtype == kFloat16) return {run_unit<FloatPath<Fp16>>, merge_token<Fp16>};
  return {run_unit<FloatPath<float>>, merge_token<float>};
}

// The threads take units from one counter, and when all units are done, tokens to merge from another. Whoever
// computes a unit writes the same numbers to the same place, so results do not depend on the threads. A thread takes
// its next unit when it begins with one, to fetch its pages meanwhile; but not the last units, that nobody waits for
// a thread that has one in stock.
struct Team {
  const Call &call;
  const Kernel kernel;
  std::atomic<int64_t> next_unit{0}, units_done{0}, next_token{0};

  void work() {
    static thread_local Scratch scratch;
    const int64_t units = call.num_items * call.num_kv_heads;
    const int64_t last_ahead = call.num_threads > 1 ? units - 2 * call.num_threads : units;
    int64_t done = 0;
    for (int64_t unit = take(), next = units; unit < units; unit = next, ++done) {
      const bool is_ahead = unit < last_ahead;
      if (is_ahead) next = take();
      kernel.unit(call, unit_id(unit), is_ahead && next < units ? unit_id(next) : UnitId{-1, 0}, scratch);
      if (!is_ahead) next = take();
    }
    units_done.fetch_add(done, std::memory_order_acq_rel);
    for (int spins = 0; units_done.load(std::memory_order_acquire) < units; ++spins)
      if (spins > 1000) std::this_thread::yield();
    constexpr int64_t kTokens = 4;
    for (int64_t token; (token = next_token.fetch_add(kTokens, std::memory_order_relaxed)) < call.num_tokens;)
      for (int64_t t = token; t < std::min(token + kTokens, call.num_tokens); ++t)
        kernel.merge(call, int(t), scratch.floats(call.head_dim));
  }

  int64_t take() { return next_unit.fetch_add(1, std::memory_order_relaxed); }
  UnitId unit_id(int64_t unit) const {
    return {call.order[unit / call.num_kv_heads], int(unit % call.num_kv_heads)};
  }
};

void work_in_team(void *team) { static_cast<Team *>(team)->work(); }

}  // namespace
}  // namespace parrot

#define PARROT_EXPORT __attribute__((visibility("default")))

extern "C" {

PARROT_EXPORT int64_t parrot_call_bytes() { return sizeof(parrot::Call); }

// Returns the fault, and where it is in `index`. Reads the plan and the block table only.
PARROT_EXPORT int64_t parrot_check(const parrot::Call *call, int64_t *index) {
  parrot::Checked checked = parrot::check_items(*call);
  if (checked.fault == parrot::kFine) checked = parrot::check_tokens(*call);
  *index = checked.index;
  return checked.fault;
}

// Runs a checked call.
PARROT_EXPORT void parrot_attend(const parrot::Call *call) {
  using Parallel = void (*)(void (*)(void *), void *, unsigned, unsigned);
  parrot::Team team{*call, parrot::kernel_for(*call)};
  if (call->num_threads > 1 && call->parallel)
    reinterpret_cast<Parallel>(call->parallel)(parrot::work_in_team, &team, unsigned(call->num_threads), 0);
  else
    team.work();
}
}
