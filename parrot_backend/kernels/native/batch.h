// A batch, and what parts of its work cost. As in batch.py and costs.py.
#pragma once

#include <cstdint>
#include <vector>

namespace parrot {

struct Costs {
  double kv_token, row, item, partial;
  int64_t max_rows, min_chunk_tokens;
};

struct Batch {
  const int32_t* table;
  int64_t row_stride, num_columns, num_requests, page_size;
  std::vector<int64_t> query_start, query_lens, seq_lens, full_pages;

  const int32_t* row(int64_t request) const { return table + request * row_stride; }
};

inline int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }

}  // namespace parrot
