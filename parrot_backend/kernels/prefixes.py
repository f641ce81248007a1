"""Finds which requests of a batch have the same first KV pages, as a tree.

Pages are compared by their physical ids, exactly and one by one. Reference counts say that
somebody shares a page but not who, and equality may come back after the first difference (an engine
need not give equal contents equal ids), so neither is used and nothing is searched by halving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from parrot_backend.kernels.errors import AttentionError, TableTooNarrow

Int32Array = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.signedinteger[Any]]

_NO_PAGE = np.iinfo(np.int32).min


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Runs of pages that several requests have in common, parents before their children.

    Arrays are int32. A node is a segment of at least one page that at least two requests have at
    the same places of their tables; what it does not cover of a request is the request's own.

    Attributes:
        order: [B] Request indices such that the members of every node are neighbours.
        first_member: [N] Where a node's members begin in ``order``.
        end_member: [N] Where they end.
        start_page: [N] First page (position in the table, not id) of the segment.
        end_page: [N] One past its last page.
        parent: [N] The node whose segment ends where this one's starts; -1 at page 0.
    """

    order: Int32Array
    first_member: Int32Array
    end_member: Int32Array
    start_page: Int32Array
    end_page: Int32Array
    parent: Int32Array

    @property
    def num_nodes(self) -> int:
        """How many segments are shared."""
        return len(self.parent)

    def own_start_pages(self) -> Int32Array:
        """Return [B]: where each request's own pages begin, in the order of the batch."""
        along = np.zeros(len(self.order), np.int32)
        bounds = zip(
            self.first_member.tolist(),
            self.end_member.tolist(),
            self.end_page.tolist(),
            strict=True,
        )
        for first, end, page in bounds:
            along[first:end] = page
        own = np.empty_like(along)
        own[self.order] = along
        return own


@dataclass(slots=True)
class SortedBatch:
    """Requests in lexicographic order of their full pages.

    Attributes:
        order: [B] Request indices.
        common_pages: [max(B - 1, 0)] Pages that neighbours in ``order`` have in common.
    """

    order: IntArray
    common_pages: IntArray


def find_prefixes(block_table: IntArray, num_full_pages: IntArray) -> PrefixTree:
    """Find all segments of full pages that at least two requests have in common.

    Args:
        block_table: [B, P] Physical page ids; what lies beyond a request's full pages is not read.
        num_full_pages: [B] Leading pages of each request that all its query tokens see whole.

    Returns:
        The tree, every shared page in it. Which segments are worth sharing is another question:
        :func:`~parrot_backend.kernels.folding.fold_prefixes`.

    Raises:
        AttentionError: Shapes do not fit, or a count is negative.
        TableTooNarrow: A request has more full pages than the table has columns.
    """
    check_table(block_table, num_full_pages)
    batch = sort_batch(block_table, num_full_pages)
    return tree_of(batch)


def check_table(block_table: IntArray, num_full_pages: IntArray) -> None:
    """Check the shapes and counts of a batch.

    Raises:
        AttentionError: Shapes do not fit, or a count is negative.
        TableTooNarrow: A request has more full pages than the table has columns.
    """
    check_integers("block_table", block_table, 2)
    check_integers("num_full_pages", num_full_pages, 1)
    if num_full_pages.shape != block_table.shape[:1]:
        raise AttentionError(
            f"num_full_pages must be [{len(block_table)}], not {[*num_full_pages.shape]}"
        )
    if not len(num_full_pages):
        return
    if num_full_pages.min() < 0:
        raise AttentionError("num_full_pages must not be negative")
    most = int(num_full_pages.max())
    if most > block_table.shape[1]:
        raise TableTooNarrow(
            f"a request has {most} full pages; block_table has {block_table.shape[1]} columns"
        )


def check_integers(name: str, array: object, num_dimensions: int) -> None:
    """Check that what a caller gave is a numpy array of signed integers.

    Raises:
        AttentionError: It is something else, such as a tensor, or has other dimensions.
    """
    if not isinstance(array, np.ndarray):
        raise AttentionError(f"{name} must be a numpy array, not {type(array).__name__}")
    if array.ndim != num_dimensions or array.dtype.kind != "i":
        raise AttentionError(
            f"{name} must be signed integers in {num_dimensions} dimensions, "
            f"not {[*array.shape]} {array.dtype}"
        )


def sort_batch(block_table: IntArray, num_full_pages: IntArray) -> SortedBatch:
    """Sort requests by their full pages, and count what neighbours have in common.

    Sorting by every column would cost as much as the table is wide. Requests are sorted by the
    first page only; wherever neighbours then stand in the wrong order, the column in which they
    first differ becomes a sort key too. Neighbours that are right everywhere prove the whole order.
    """
    num_columns = int(num_full_pages.max()) if len(num_full_pages) else 0
    if len(block_table) < 2 or num_columns == 0:
        order = np.arange(len(block_table))
        return SortedBatch(order, np.zeros(max(len(order) - 1, 0), np.int64))
    keys = [0]
    while True:
        columns = [_column(block_table, num_full_pages, key) for key in keys]
        order = (
            np.lexsort(columns[::-1]) if len(keys) > 1 else np.argsort(columns[0], kind="stable")
        )
        full = num_full_pages[order]
        rows = block_table[:, :num_columns].take(order, axis=0)
        differs = rows[1:] != rows[:-1]
        common = differs.argmax(axis=1)
        pairs = np.arange(len(common))
        common[~differs[pairs, common]] = num_columns
        np.minimum(common, np.minimum(full[1:], full[:-1]), out=common)
        wrong = _out_of_order(rows, full, common)
        if not wrong.any():
            return SortedBatch(order, common)
        keys = sorted({*keys, *common[wrong].tolist()})


def _column(block_table: IntArray, num_full_pages: IntArray, column: int) -> IntArray:
    """Return a column of the table, with no page's id where a request has no full page in it."""
    ids: IntArray = np.where(num_full_pages > column, block_table[:, column], _NO_PAGE)
    return ids


def _out_of_order(rows: IntArray, full: IntArray, common: IntArray) -> npt.NDArray[np.bool_]:
    """Tell for each pair of neighbours whether the second should stand before the first.

    A request that ends where they first differ stands first, as a word before its compounds.
    """
    pairs = np.arange(len(common))
    column = np.minimum(common, rows.shape[1] - 1)
    above = np.where(full[:-1] > common, rows[pairs, column], _NO_PAGE)
    below = np.where(full[1:] > common, rows[pairs + 1, column], _NO_PAGE)
    wrong: npt.NDArray[np.bool_] = above > below
    return wrong


def tree_of(batch: SortedBatch) -> PrefixTree:
    """Build the tree from a sorted batch.

    A node is a maximal run of neighbours that have at least its pages in common. Only where the
    count of common pages changes can a node begin or end.
    """
    depths = np.append(batch.common_pages, 0)
    changes = np.flatnonzero(np.diff(depths, prepend=0))
    nodes: list[tuple[int, int, int, int]] = []
    open_runs: list[tuple[int, int]] = []
    for position, depth in zip(changes.tolist(), depths[changes].tolist(), strict=True):
        first = position
        while open_runs and open_runs[-1][1] > depth:
            first, stop = open_runs.pop()
            start = max(open_runs[-1][1] if open_runs else 0, depth)
            nodes.append((first, start, position + 1, stop))
        if depth > (open_runs[-1][1] if open_runs else 0):
            open_runs.append((first, depth))
    nodes.sort()
    first_member, start_page, end_member, end_page = (
        np.array(nodes, np.int32).reshape(-1, 4).T.copy()
    )
    return PrefixTree(
        order=batch.order.astype(np.int32),
        first_member=first_member,
        end_member=end_member,
        start_page=start_page,
        end_page=end_page,
        parent=np.array(_parents(nodes), np.int32),
    )


def _parents(nodes: list[tuple[int, int, int, int]]) -> list[int]:
    """Return the parent of each of (first member, start page, end member, end page), sorted."""
    parents: list[int] = []
    path: list[int] = []
    for node, (first, _, _, _) in enumerate(nodes):
        while path and nodes[path[-1]][2] <= first:
            path.pop()
        parents.append(path[-1] if path else -1)
        path.append(node)
    return parents
