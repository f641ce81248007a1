// Lays tiles on a line and cuts it into items for workers. The results are those of work.py, to the
// last bit of the arithmetic that decides where a cut falls.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "batch.h"
#include "prefix_tree.h"

namespace parrot {

struct Tile {
  int64_t row_start, num_rows, table_row, kv_start, kv_end, num_pages;
};

struct Item {
  int32_t row_start, num_rows, table_row, kv_start, kv_end, slot_start, flags, reserved;
};

constexpr int32_t kCausal = 1;
constexpr int32_t kDirect = 2;

struct WorkPlan {
  std::vector<Item> items;
  std::vector<int32_t> tokens, positions, slot_ptr, slots, worker_ptr;
  int64_t shared_tokens, plain_tokens;
};

class WorkBuilder {
 public:
  WorkBuilder(const Batch& batch, const PrefixTree& tree, const Costs& costs, WorkPlan& plan)
      : batch_(batch), tree_(tree), costs_(costs), plan_(plan) {}

  void build(int64_t num_workers) {
    set_positions();
    lay_tiles();
    find_cuts(num_workers);
    make_items();
    number_slots();
  }

 private:
  void set_positions() {
    plan_.positions.assign(batch_.query_start.back(), -1);
    for (int64_t i = 0; i < batch_.num_requests; ++i) {
      const int64_t before = batch_.seq_lens[i] - batch_.query_lens[i];
      int32_t* positions = plan_.positions.data() + batch_.query_start[i];
      for (int64_t j = 0; j < batch_.query_lens[i]; ++j) {
        positions[j] = static_cast<int32_t>(before + j);
      }
    }
  }

  void lay_tiles() {
    tiles_.clear();
    plan_.tokens.clear();
    plan_.plain_tokens = 0;
    std::vector<int64_t> row_ptr(1, 0), own_start(batch_.num_requests, 0);
    for (const int64_t request : tree_.order) {
      for (int64_t j = 0; j < batch_.query_lens[request]; ++j) {
        plan_.tokens.push_back(static_cast<int32_t>(batch_.query_start[request] + j));
      }
      row_ptr.push_back(static_cast<int64_t>(plan_.tokens.size()));
    }
    const int64_t page = batch_.page_size;
    for (const Node& node : tree_.nodes) {
      std::fill(own_start.begin() + node.first_member, own_start.begin() + node.end_member,
                node.end_page * page);
      const int64_t end = row_ptr[node.end_member];
      for (int64_t row = row_ptr[node.first_member]; row < end; row += costs_.max_rows) {
        add_tile(row, std::min(costs_.max_rows, end - row), tree_.order[node.first_member],
                 node.start_page * page, node.end_page * page);
      }
    }
    for (int64_t i = 0; i < batch_.num_requests; ++i) {
      const int64_t request = tree_.order[i];
      const int64_t end = row_ptr[i + 1];
      for (int64_t row = row_ptr[i]; row < end; row += costs_.max_rows) {
        const int64_t num_rows = std::min(costs_.max_rows, end - row);
        const int64_t kv_end = batch_.seq_lens[request] - (end - row - num_rows);
        plan_.plain_tokens += kv_end;
        add_tile(row, num_rows, request, own_start[i], kv_end);
      }
    }
  }

  void add_tile(int64_t row, int64_t num_rows, int64_t table_row, int64_t start, int64_t end) {
    tiles_.push_back({row, num_rows, table_row, start, end, ceil_div(end - start, batch_.page_size)});
  }

  double page_cost(const Tile& tile) const {
    return batch_.page_size * (costs_.kv_token + costs_.row * tile.num_rows);
  }

  double fixed_cost(const Tile& tile) const {
    return costs_.item + costs_.partial * tile.num_rows;
  }

  // Where, in pages of all tiles in a row, each worker but the first begins.
  void find_cuts(int64_t num_workers) {
    cost_ptr_.assign(1, 0.0);
    page_ptr_.assign(1, 0);
    for (const Tile& tile : tiles_) {
      cost_ptr_.push_back(cost_ptr_.back() + (fixed_cost(tile) + page_cost(tile) * tile.num_pages));
      page_ptr_.push_back(page_ptr_.back() + tile.num_pages);
    }
    cuts_.assign(num_workers - 1, 0);
    if (tiles_.empty()) return;
    const double share = cost_ptr_.back() / num_workers;
    const int64_t least = ceil_div(costs_.min_chunk_tokens, batch_.page_size);
    const int64_t last = static_cast<int64_t>(tiles_.size()) - 1;
    int64_t at = 0;
    for (int64_t worker = 1; worker < num_workers; ++worker) {
      const double wanted = share * worker;
      while (at < last && cost_ptr_[at + 1] <= wanted) ++at;
      const double per_page = page_cost(tiles_[at]);
      const double into = (wanted - cost_ptr_[at] - fixed_cost(tiles_[at])) / per_page;
      const int64_t grid = share >= per_page * (least + 1) ? 1 : least;
      const int64_t whole = tiles_[at].num_pages;
      int64_t pages = static_cast<int64_t>(std::nearbyint(into / grid) * grid);
      if (pages < least || whole - pages < least) pages = 2 * into < whole ? 0 : whole;
      cuts_[worker - 1] = page_ptr_[at] + pages;
    }
  }

  void make_items() {
    plan_.items.clear();
    plan_.shared_tokens = 0;
    size_t cut = 0;
    plan_.worker_ptr.assign(cuts_.size() + 2, 0);
    const auto start_workers = [&](int64_t page) {
      while (cut < cuts_.size() && cuts_[cut] <= page) {
        plan_.worker_ptr[++cut] = static_cast<int32_t>(plan_.items.size());
      }
    };
    for (size_t i = 0; i < tiles_.size(); ++i) {
      const Tile& tile = tiles_[i];
      for (int64_t page = page_ptr_[i]; page < page_ptr_[i + 1];) {
        start_workers(page);
        int64_t stop = page_ptr_[i + 1];
        if (cut < cuts_.size()) stop = std::min(stop, cuts_[cut]);
        const int64_t start = tile.kv_start + (page - page_ptr_[i]) * batch_.page_size;
        const int64_t end = std::min(
            tile.kv_end, tile.kv_start + (stop - page_ptr_[i]) * batch_.page_size);
        plan_.items.push_back({static_cast<int32_t>(tile.row_start),
                               static_cast<int32_t>(tile.num_rows),
                               static_cast<int32_t>(tile.table_row), static_cast<int32_t>(start),
                               static_cast<int32_t>(end), 0, 0, 0});
        plan_.shared_tokens += end - start;
        page = stop;
      }
    }
    start_workers(page_ptr_.back());
    plan_.worker_ptr.back() = static_cast<int32_t>(plan_.items.size());
  }

  void number_slots() {
    std::vector<int32_t>& ptr = plan_.slot_ptr;
    ptr.assign(plan_.positions.size() + 1, 0);
    int32_t num_slots = 0;
    for (Item& item : plan_.items) {
      item.slot_start = num_slots;
      num_slots += item.num_rows;
      for (int32_t r = 0; r < item.num_rows; ++r) ++ptr[plan_.tokens[item.row_start + r] + 1];
    }
    for (Item& item : plan_.items) {
      const int32_t first = plan_.tokens[item.row_start];
      if (item.kv_end > plan_.positions[first] + 1) item.flags |= kCausal;
      if (ptr[first + 1] == 1) item.flags |= kDirect;
    }
    for (size_t i = 1; i < ptr.size(); ++i) ptr[i] += ptr[i - 1];
    next_.assign(ptr.begin(), ptr.end());
    plan_.slots.resize(num_slots);
    for (const Item& item : plan_.items) {
      for (int32_t r = 0; r < item.num_rows; ++r) {
        plan_.slots[next_[plan_.tokens[item.row_start + r]]++] = item.slot_start + r;
      }
    }
  }

  const Batch& batch_;
  const PrefixTree& tree_;
  const Costs& costs_;
  WorkPlan& plan_;
  std::vector<Tile> tiles_;
  std::vector<double> cost_ptr_;
  std::vector<int64_t> page_ptr_, cuts_;
  std::vector<int32_t> next_;
};

}  // namespace parrot
