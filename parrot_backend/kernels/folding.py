"""Decides which shared segments are worth sharing: per node, and for a whole step."""

from __future__ import annotations

import numpy as np

from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.prefixes import Int32Array, IntArray, PrefixTree


def fold_prefixes(
    tree: PrefixTree, query_lens: IntArray, page_size: int, costs: PlanCosts
) -> PrefixTree:
    """Leave out the nodes that cost more than they save.

    A node is decided after its children. It saves reading its segment once for each tile of what
    comes next (its children, and members that have only pages of their own from there), less once
    for each tile of its own; it costs an item per tile and a partial per query token. The segment
    of a node that goes is read by what comes next: children begin where the node did.

    Args:
        tree: All shared segments.
        query_lens: [B] Query tokens of each request.
        page_size: Tokens of a page.
        costs: What reading, items and partials cost.

    Returns:
        A tree over the same order with the nodes that pay.

    Raises:
        AttentionError: ``query_lens`` does not fit the tree.
    """
    if query_lens.shape != tree.order.shape:
        raise AttentionError(f"query_lens must be [{len(tree.order)}], not {query_lens.shape}")
    if not tree.num_nodes:
        return tree
    lens = query_lens[tree.order].astype(np.int64)
    row_ptr = np.concatenate(([0], np.cumsum(lens)))
    tile_ptr = np.concatenate(([0], np.cumsum(-(-lens // costs.max_rows))))
    rows = (row_ptr[tree.end_member] - row_ptr[tree.first_member]).tolist()
    own_tiles = (tile_ptr[tree.end_member] - tile_ptr[tree.first_member]).tolist()
    length = ((tree.end_page - tree.start_page) * page_size).tolist()
    parent = tree.parent.tolist()
    kept = [False] * tree.num_nodes
    #: Tiles that read on after the node, in place of those of its members one by one.
    fewer = [0] * tree.num_nodes
    for node in range(tree.num_nodes - 1, -1, -1):
        after = own_tiles[node] - fewer[node]
        tiles = -(-rows[node] // costs.max_rows)
        saving = (after - tiles) * length[node] * costs.kv_token
        kept[node] = saving > rows[node] * costs.partial + tiles * costs.item
        if parent[node] >= 0:
            fewer[parent[node]] += own_tiles[node] - tiles if kept[node] else fewer[node]
    return tree if all(kept) else _without(tree, np.array(kept))


def _without(tree: PrefixTree, kept: Int32Array) -> PrefixTree:
    """Return the tree with only some of its nodes; their segments grow towards the root."""
    new_index = np.cumsum(kept) - 1
    starts, parents = tree.start_page.tolist(), tree.parent.tolist()
    for node, parent in enumerate(tree.parent.tolist()):
        if parent >= 0 and not kept[parent]:
            starts[node], parents[node] = starts[parent], parents[parent]
    chosen = np.flatnonzero(kept)
    parent_of = np.array(parents, np.int32)[chosen]
    return PrefixTree(
        order=tree.order,
        first_member=tree.first_member[chosen],
        end_member=tree.end_member[chosen],
        start_page=np.array(starts, np.int32)[chosen],
        end_page=tree.end_page[chosen],
        parent=np.where(parent_of >= 0, new_index[parent_of], -1).astype(np.int32),
    )
