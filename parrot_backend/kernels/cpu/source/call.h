// What Python hands over. Every field is eight bytes wide, so that ctypes and C++ agree on the layout
// without padding; `CallFields` in library.py lists the same fields in the same order.
#pragma once
#include <cstdint>

namespace parrot {

enum Dtype : int64_t { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2 };

// kRows: K of a page is [head_dim][page_size], V is [page_size][head_dim] (vLLM's "vec", "vec16").
// kPairs: K is [page_size/16][head_dim/2][16][2], V is [head_dim/16][page_size/2][16][2] ("amx").
enum Layout : int64_t { kRows = 0, kPairs = 1 };

enum ItemColumn { kRowStart, kNumRows, kTableRow, kKvStart, kKvEnd, kSlotStart, kFlags, kReserved };
constexpr int kItemColumns = 8;
constexpr int32_t kCausal = 1;

struct Call {
  int64_t num_items, num_rows, num_tokens, num_requests, num_slots;
  int64_t num_heads, num_kv_heads, head_dim, page_size, num_pages;
  int64_t table_stride, table_width;
  int64_t query_token_stride, query_head_stride;    // in elements
  int64_t output_token_stride, output_head_stride;  // in elements
  int64_t page_stride, head_stride;                 // in elements
  int64_t dtype, layout, window, num_threads;
  double scale, softcap;
  const int32_t *items, *order, *tokens, *positions, *slot_ptr, *slots, *block_table;
  const void *query, *pages;
  void *output;
  float *lse;                   // [num_tokens][num_heads], or null
  float *part_output;           // [num_slots][num_heads][head_dim]
  float *part_lse;              // [num_slots][num_heads], base 2
  const float *sinks;           // [num_heads], or null
  void *parallel;               // GOMP_parallel of the OpenMP runtime in this process, or null
};

}  // namespace parrot
