// Finds which requests have the same first pages, and drops what does not pay.
// The results are those of prefixes.py and folding.py, which say what and why.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "batch.h"

namespace parrot {

struct Node {
  int64_t first_member, end_member, start_page, end_page, parent;
};

struct PrefixTree {
  std::vector<int64_t> order;
  std::vector<Node> nodes;
};

// Reads each full page about once: a group is compared with its first member, from where the group
// began to the first difference of any, and only then split by the page that follows.
class TreeBuilder {
 public:
  TreeBuilder(const Batch& batch, PrefixTree& tree) : batch_(batch), tree_(tree) {}

  void build() {
    tree_.nodes.clear();
    tree_.order.resize(batch_.num_requests);
    for (int64_t i = 0; i < batch_.num_requests; ++i) tree_.order[i] = i;
    split(0, batch_.num_requests, 0, -1);
  }

 private:
  static constexpr int64_t kNoPage = std::numeric_limits<int32_t>::min();

  int64_t page_at(int64_t request, int64_t column) const {
    return column < batch_.full_pages[request] ? batch_.row(request)[column] : kNoPage;
  }

  // Members [first, end) have the pages before `depth` in common.
  void split(int64_t first, int64_t end, int64_t depth, int64_t parent) {
    sort_members(first, end, depth);
    int64_t* order = tree_.order.data();
    for (int64_t run = first; run < end;) {
      const int64_t page = page_at(order[run], depth);
      int64_t stop = run + 1;
      while (stop < end && page_at(order[stop], depth) == page) ++stop;
      if (page != kNoPage && stop - run > 1) {
        const int64_t end_page = common_end(run, stop, depth + 1);
        tree_.nodes.push_back({run, stop, depth, end_page, parent});
        split(run, stop, end_page, static_cast<int64_t>(tree_.nodes.size()) - 1);
      }
      run = stop;
    }
  }

  // By the page in a column, equal ones by their index in the batch: keys never tie.
  void sort_members(int64_t first, int64_t end, int64_t depth) {
    keys_.resize(end - first);
    members_.assign(tree_.order.begin() + first, tree_.order.begin() + end);
    for (int64_t i = 0; i < end - first; ++i) {
      const uint64_t page = static_cast<uint64_t>(page_at(members_[i], depth) - kNoPage);
      keys_[i] = page << 32 | static_cast<uint64_t>(i);
    }
    std::sort(keys_.begin(), keys_.end());
    for (int64_t i = 0; i < end - first; ++i) {
      tree_.order[first + i] = members_[keys_[i] & 0xffffffffu];
    }
  }

  int64_t common_end(int64_t first, int64_t end, int64_t from) const {
    const int64_t leader = tree_.order[first];
    int64_t stop = batch_.full_pages[leader];
    for (int64_t i = first + 1; i < end; ++i) {
      const int64_t other = tree_.order[i];
      stop = std::min(stop, batch_.full_pages[other]);
      stop = first_difference(batch_.row(leader), batch_.row(other), from, stop);
    }
    return stop;
  }

  static int64_t first_difference(const int32_t* a, const int32_t* b, int64_t from, int64_t stop) {
    constexpr int64_t kBlock = 128;
    while (from + kBlock <= stop && !std::memcmp(a + from, b + from, kBlock * sizeof(*a))) {
      from += kBlock;
    }
    while (from < stop && a[from] == b[from]) ++from;
    return from;
  }

  const Batch& batch_;
  PrefixTree& tree_;
  std::vector<uint64_t> keys_;
  std::vector<int64_t> members_;
};

// Drops nodes that cost more than they save; children of a dropped node begin where it did.
inline void fold(PrefixTree& tree, const Batch& batch, const Costs& costs) {
  std::vector<Node>& nodes = tree.nodes;
  const int64_t num_nodes = static_cast<int64_t>(nodes.size());
  std::vector<int64_t> row_ptr(1, 0), tile_ptr(1, 0), fewer(num_nodes, 0), index(num_nodes, -1);
  for (const int64_t request : tree.order) {
    const int64_t lens = batch.query_lens[request];
    row_ptr.push_back(row_ptr.back() + lens);
    tile_ptr.push_back(tile_ptr.back() + ceil_div(lens, costs.max_rows));
  }
  std::vector<bool> kept(num_nodes);
  for (int64_t i = num_nodes - 1; i >= 0; --i) {
    const Node& node = nodes[i];
    const int64_t rows = row_ptr[node.end_member] - row_ptr[node.first_member];
    const int64_t own_tiles = tile_ptr[node.end_member] - tile_ptr[node.first_member];
    const int64_t tiles = ceil_div(rows, costs.max_rows);
    const int64_t length = (node.end_page - node.start_page) * batch.page_size;
    const double saving = static_cast<double>((own_tiles - fewer[i] - tiles) * length);
    kept[i] = saving * costs.kv_token > rows * costs.partial + tiles * costs.item;
    if (node.parent >= 0) fewer[node.parent] += kept[i] ? own_tiles - tiles : fewer[i];
  }
  int64_t num_kept = 0;
  for (int64_t i = 0; i < num_nodes; ++i) {
    Node& node = nodes[i];
    if (node.parent >= 0 && !kept[node.parent]) {
      const Node& parent = nodes[node.parent];
      node.start_page = parent.start_page;
      node.parent = parent.parent;
    }
    if (kept[i]) index[i] = num_kept++;
  }
  int64_t next = 0;
  for (int64_t i = 0; i < num_nodes; ++i) {
    if (!kept[i]) continue;
    Node node = nodes[i];
    if (node.parent >= 0) node.parent = index[node.parent];
    nodes[next++] = node;
  }
  nodes.resize(next);
}

}  // namespace parrot
