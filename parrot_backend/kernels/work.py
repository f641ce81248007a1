"""Turns a tree of prefixes and a batch into items of work, balanced over workers.

A *tile* is up to `max_rows` query tokens against one range of KV positions: a node with its
members, or a request with its own pages. Tiles lie one after another on a line, each as long as it
costs, and the line is cut into as many equal stretches as there are workers; a tile that a cut goes
through becomes several items. So each worker has one stretch, tiles are cut where balance needs it
and nowhere else, and the order of everything follows from the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parrot_backend.kernels.batch import Batch
from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.errors import AttentionError, TreeMismatch
from parrot_backend.kernels.prefixes import Int32Array, IntArray, PrefixTree

#: Columns of :attr:`WorkPlan.items`.
ROW_START, NUM_ROWS, TABLE_ROW, KV_START, KV_END, SLOT_START, FLAGS, RESERVED = range(8)
#: Bits of the column ``FLAGS``.
CAUSAL = 1
DIRECT = 2


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """Items of attention work over a batch, the same for all heads and layers.

    Arrays are int32 and C-contiguous. B requests, T query tokens (rows of the query tensor), N
    items, S partial slots, W workers. Requests without query tokens have no items and no slots.

    Attributes:
        items: [N, 8] ``ROW_START, NUM_ROWS``: the item's rows are
            ``tokens[ROW_START : ROW_START + NUM_ROWS]``. ``TABLE_ROW, KV_START, KV_END``: its KV
            positions, in the pages of that row of the block table. ``SLOT_START``: its row ``r``
            leaves its partial in slot ``SLOT_START + r``. ``FLAGS``: ``CAUSAL``: a row sees only
            positions up to its own; without it, each row sees all. ``DIRECT``: each row has no
            other partial, so the item may write the output itself; its slots stay unused.
        tokens: [R] Query token of each packed row; a query token is there at most once.
        positions: [T] KV position of each query token; -1 if it has none (padding).
        slot_ptr: [T + 1] Query token t has the partials ``slots[slot_ptr[t] : slot_ptr[t + 1]]``.
            Exactly one partial means that its item is ``DIRECT``.
        slots: [S] Slot numbers, each once, in the order in which they are to be merged.
        worker_ptr: [W + 1] Worker w runs ``items[worker_ptr[w] : worker_ptr[w + 1]]``.
        num_slots: S.
        num_tokens: T.
        shared_tokens: KV tokens that the items read.
        plain_tokens: KV tokens that the items would read if nothing were shared.
        page_size: Tokens of a page.
    """

    items: Int32Array
    tokens: Int32Array
    positions: Int32Array
    slot_ptr: Int32Array
    slots: Int32Array
    worker_ptr: Int32Array
    num_slots: int
    num_tokens: int
    shared_tokens: int
    plain_tokens: int
    page_size: int

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.items)

    @property
    def num_workers(self) -> int:
        """W."""
        return len(self.worker_ptr) - 1


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of a batch, nodes first; all that does not change while only sequences grow.

    int64 arrays of one entry per tile. ``kv_end`` of a node's tile stands for good; that of a
    request's own tile is ``seq_len`` of its request less ``end_gap``.
    """

    row_start: IntArray
    num_rows: IntArray
    table_row: IntArray
    kv_start: IntArray
    kv_end: IntArray
    end_gap: IntArray
    num_node_tiles: int
    tokens: Int32Array


def plan_work(
    tree: PrefixTree,
    query_start: IntArray,
    seq_lens: IntArray,
    page_size: int,
    *,
    num_workers: int,
    costs: PlanCosts | None = None,
) -> WorkPlan:
    """Plan the attention of a batch.

    Args:
        tree: What requests share; only of pages that all query tokens of its members see whole.
        query_start: [B + 1] Query tokens of request b are ``query_start[b] : query_start[b + 1]``;
            they are the last of its tokens.
        seq_lens: [B] Tokens of each request, query tokens included; 0 for padding.
        page_size: Tokens of a KV page.
        num_workers: Into how many stretches of equal cost to cut.
        costs: What parts of the work cost, and limits; the defaults are a GPU's.

    Returns:
        The plan. Chunks begin at multiples of ``page_size``. By these costs no worker has more than
        an equal share, two shortest chunks of the largest tile, and what three items cost to start
        and to merge.

    Raises:
        AttentionError: An argument is out of its range.
        TreeMismatch: The tree is of another batch.
    """
    batch = Batch.checked(query_start, seq_lens, page_size)
    if num_workers < 1:
        raise AttentionError(f"num_workers must be at least 1, not {num_workers}")
    check_tree(tree, batch)
    costs = costs or PlanCosts()
    return cut_tiles(lay_tiles(tree, batch, costs), batch, num_workers, costs)


def check_tree(tree: PrefixTree, batch: Batch) -> None:
    """Check that a tree fits a batch.

    Raises:
        TreeMismatch: It has another number of requests, or shares pages that a member's query
            tokens do not all see whole.
    """
    if len(tree.order) != batch.num_requests:
        raise TreeMismatch(
            f"the tree has {len(tree.order)} requests, the batch has {batch.num_requests}"
        )
    beyond = np.flatnonzero(tree.own_start_pages() > batch.num_full_pages)
    if len(beyond):
        raise TreeMismatch(
            f"the tree shares pages of request {beyond[0]} that its query tokens do not see whole"
        )


def lay_tiles(tree: PrefixTree, batch: Batch, costs: PlanCosts) -> Tiles:
    """Split the members of nodes and the requests into tiles."""
    order = tree.order.astype(np.int64)
    lens = batch.query_lens[order]
    row_ptr = np.concatenate(([0], np.cumsum(lens)))
    tokens = expand(batch.query_start[order], lens)
    starts, counts, node = split_rows(
        row_ptr[tree.first_member], row_ptr[tree.end_member], costs.max_rows
    )
    own_start, own_counts, member = split_rows(row_ptr[:-1], row_ptr[1:], costs.max_rows)
    request = order[member]
    ends: IntArray = np.zeros(len(node) + len(member), np.int64)
    ends[: len(node)] = tree.end_page[node].astype(np.int64) * batch.page_size
    return Tiles(
        row_start=np.concatenate((starts, own_start)),
        num_rows=np.concatenate((counts, own_counts)),
        table_row=np.concatenate((order[tree.first_member[node]], request)),
        kv_start=np.concatenate((tree.start_page[node], tree.own_start_pages()[request]))
        * np.int64(batch.page_size),
        kv_end=ends,
        end_gap=row_ptr[member + 1] - own_start - own_counts,
        num_node_tiles=len(node),
        tokens=tokens.astype(np.int32),
    )


def split_rows(
    starts: IntArray, ends: IntArray, max_rows: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Cut ranges of rows into tiles: returns first row, rows and range of each tile."""
    num_tiles = -(-(ends - starts) // max_rows)
    source = np.repeat(np.arange(len(starts)), num_tiles)
    tile = expand(np.zeros_like(num_tiles), num_tiles)
    first = starts[source] + tile * max_rows
    return first, np.minimum(ends[source] - first, max_rows), source


def expand(starts: IntArray, lens: IntArray) -> IntArray:
    """Concatenate ``arange(start, start + length)`` for each start and length."""
    stops = np.cumsum(lens)
    total = int(stops[-1]) if len(stops) else 0
    expanded: IntArray = np.arange(total) + np.repeat(starts - (stops - lens), lens)
    return expanded


def cut_tiles(tiles: Tiles, batch: Batch, num_workers: int, costs: PlanCosts) -> WorkPlan:
    """Cut tiles into items of work for each worker."""
    page = batch.page_size
    num_nodes = tiles.num_node_tiles
    kv_end = tiles.kv_end.copy()
    kv_end[num_nodes:] = batch.seq_lens[tiles.table_row[num_nodes:]] - tiles.end_gap
    num_pages = -(-(kv_end - tiles.kv_start) // page)
    page_ptr = np.concatenate(([0], np.cumsum(num_pages)))
    cuts = _cuts(tiles, num_pages, page_ptr, num_workers, page, costs)
    starts = np.sort(np.concatenate((page_ptr[:-1], cuts)))
    if len(starts):
        starts = starts[np.diff(starts, prepend=-1) > 0]
        starts = starts[starts < page_ptr[-1]]
    tile = np.searchsorted(page_ptr, starts, side="right") - 1
    items = np.zeros((len(starts), 8), np.int32)
    items[:, ROW_START] = tiles.row_start[tile]
    items[:, NUM_ROWS] = tiles.num_rows[tile]
    items[:, TABLE_ROW] = tiles.table_row[tile]
    begin = (starts - page_ptr[tile]) * page + tiles.kv_start[tile]
    items[:, KV_START] = begin
    items[:, KV_END] = kv_end[tile]
    same = tile[1:] == tile[:-1]
    items[:-1, KV_END][same] = begin[1:][same]
    return _finished(
        items, tiles, batch, np.searchsorted(starts, cuts), int(kv_end[num_nodes:].sum())
    )


def _cuts(
    tiles: Tiles,
    num_pages: IntArray,
    page_ptr: IntArray,
    num_workers: int,
    page: int,
    costs: PlanCosts,
) -> IntArray:
    """Return [W - 1]: at which page, of all tiles in a row, each worker but the first begins."""
    if not len(num_pages):
        return np.zeros(num_workers - 1, np.int64)
    per_page = page * (costs.kv_token + costs.row * tiles.num_rows)
    fixed = costs.item + costs.partial * tiles.num_rows
    cost_ptr = np.concatenate(([0.0], np.cumsum(fixed + per_page * num_pages)))
    share = cost_ptr[-1] / num_workers
    wanted = share * np.arange(1, num_workers)
    tile = np.minimum(np.searchsorted(cost_ptr, wanted, side="right") - 1, len(num_pages) - 1)
    into = (wanted - cost_ptr[tile] - fixed[tile]) / per_page[tile]
    least = -(-costs.min_chunk_tokens // page)
    grid = np.where(share >= per_page[tile] * (least + 1), 1, least)
    pages = (np.rint(into / grid) * grid).astype(np.int64)
    whole = num_pages[tile]
    too_short = (pages < least) | (whole - pages < least)
    pages = np.where(too_short, np.where(2 * into < whole, 0, whole), pages)
    cuts: IntArray = page_ptr[tile] + pages
    return cuts


def _finished(
    items: Int32Array, tiles: Tiles, batch: Batch, worker_starts: IntArray, plain_tokens: int
) -> WorkPlan:
    """Number the slots, set the flags and list the partials of each query token."""
    rows = items[:, NUM_ROWS].astype(np.int64)
    slot_ends = np.cumsum(rows)
    num_slots = int(slot_ends[-1]) if len(items) else 0
    items[:, SLOT_START] = slot_ends - rows
    positions = batch.positions()
    row_of_slot = expand(items[:, ROW_START].astype(np.int64), rows)
    token_of_slot = tiles.tokens[row_of_slot]
    counts = np.bincount(token_of_slot, minlength=batch.num_tokens)
    slot_ptr = np.zeros(batch.num_tokens + 1, np.int32)
    np.cumsum(counts, out=slot_ptr[1:])
    slots = np.argsort(token_of_slot, kind="stable").astype(np.int32)
    first_token = tiles.tokens[items[:, ROW_START]]
    causal = items[:, KV_END] > positions[first_token] + 1
    items[:, FLAGS] = causal * CAUSAL + (counts[first_token] == 1) * DIRECT
    worker_ptr = np.empty(len(worker_starts) + 2, np.int32)
    worker_ptr[0], worker_ptr[1:-1], worker_ptr[-1] = 0, worker_starts, len(items)
    return WorkPlan(
        items=items,
        tokens=tiles.tokens,
        positions=positions,
        slot_ptr=slot_ptr,
        slots=slots,
        worker_ptr=worker_ptr,
        num_slots=num_slots,
        num_tokens=batch.num_tokens,
        shared_tokens=int((items[:, KV_END] - items[:, KV_START]).sum()),
        plain_tokens=plain_tokens,
        page_size=batch.page_size,
    )
