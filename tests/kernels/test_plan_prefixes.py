from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from parrot_backend.kernels import (
    AttentionError,
    PlanCosts,
    PrefixTree,
    TableTooNarrow,
    find_prefixes,
    fold_prefixes,
)
from tests.kernels.batches import Case, all_costs, case_of, cases

Nodes = list[tuple[list[int], int, int, int]]


def nodes_of(tree: PrefixTree) -> Nodes:
    """Return (members, first page, end page, parent) of each node."""
    rows = zip(
        tree.first_member.tolist(),
        tree.end_member.tolist(),
        tree.start_page.tolist(),
        tree.end_page.tolist(),
        tree.parent.tolist(),
        strict=True,
    )
    return [(sorted(tree.order[a:b].tolist()), start, end, up) for a, b, start, end, up in rows]


@pytest.mark.parametrize(
    ("tables", "full", "nodes"),
    [
        ([], [], []),
        ([[1, 2]], [2], []),
        ([[1, 2], [1, 2]], [2, 2], [([0, 1], 0, 2, -1)]),
        ([[1, 2], [1, 2]], [2, 1], [([0, 1], 0, 1, -1)]),
        ([[1, 2], [1, 2]], [2, 0], []),
        ([[1, 2], [3, 2]], [2, 2], []),
        # Members that are not neighbours, two groups.
        (
            [[1, 5], [2, 6], [1, 7], [2, 8]],
            [2] * 4,
            [([0, 2], 0, 1, -1), ([1, 3], 0, 1, -1)],
        ),
        # Two levels; the first request ends where the others go on together.
        (
            [[1, 2, 3], [1, 2, 9], [1, 2, 3], [1, 2, 4]],
            [3, 2, 3, 3],
            [([0, 1, 2, 3], 0, 2, -1), ([0, 2], 2, 3, 0)],
        ),
        # Equal again after the first difference: not shared.
        ([[1, 2, 3], [1, 4, 3], [1, 2, 5]], [3] * 3, [([0, 1, 2], 0, 1, -1), ([0, 2], 1, 2, 0)]),
        # Order of the first pages and of later ones pull apart.
        (
            [[1, 1, 9], [1, 2, 8], [1, 1, 7], [1, 2, 7], [1, 1, 9]],
            [3] * 5,
            [
                ([0, 1, 2, 3, 4], 0, 1, -1),
                ([0, 2, 4], 1, 2, 0),
                ([0, 4], 2, 3, 1),
                ([1, 3], 1, 2, 0),
            ],
        ),
    ],
)
def test_tables(tables: list[list[int]], full: list[int], nodes: Nodes) -> None:
    table = np.array(tables, np.int32).reshape(len(tables), len(tables[0]) if tables else 0)
    found = nodes_of(find_prefixes(table, np.array(full, np.int32)))
    assert sorted(each[:3] for each in found) == sorted(each[:3] for each in nodes)
    for members, start, end, parent in found:
        if parent < 0:
            assert start == 0
        else:
            assert found[parent][2] == start
            assert set(members) < set(found[parent][0])
        assert end > start


def common_pages(case: Case, a: int, b: int) -> int:
    """Return how many full pages two requests have in common, counted one by one."""
    full = case.batch.num_full_pages
    count = 0
    for page in range(min(full[a], full[b])):
        if case.block_table[a, page] != case.block_table[b, page]:
            break
        count += 1
    return count


@settings(deadline=None)
@given(case=cases())
def test_all_that_two_requests_have_in_common_is_shared_and_no_more(case: Case) -> None:
    tree = find_prefixes(case.block_table, case.batch.num_full_pages)
    nodes = nodes_of(tree)
    assert sorted(tree.order.tolist()) == list(range(len(case.seq_lens)))
    for a in range(len(case.seq_lens)):
        for b in range(a):
            together = [end - start for members, start, end, _ in nodes if {a, b} <= set(members)]
            assert sum(together) == common_pages(case, a, b)


@settings(deadline=None)
@given(case=cases(), costs=all_costs())
def test_folding_keeps_a_tree_and_never_costs_more(case: Case, costs: PlanCosts) -> None:
    tree = find_prefixes(case.block_table, case.batch.num_full_pages)
    folded = fold_prefixes(tree, case.batch.query_lens, case.page_size, costs)
    nodes = nodes_of(folded)
    assert folded.order.tolist() == tree.order.tolist()
    for node, (members, start, end, parent) in enumerate(nodes):
        assert parent < node
        assert start == (nodes[parent][2] if parent >= 0 else 0)
        assert len(members) > 1
        assert end > start
        for other in members[1:]:
            assert common_pages(case, members[0], other) >= end
    before, after = cost_of(tree, case, costs), cost_of(folded, case, costs)
    assert after <= before * (1 + 1e-9)
    assert after <= cost_of(nothing_shared(tree), case, costs) * (1 + 1e-9)


def nothing_shared(tree: PrefixTree) -> PrefixTree:
    none = np.zeros(0, np.int32)
    return PrefixTree(tree.order, none, none, none, none, none)


def cost_of(tree: PrefixTree, case: Case, costs: PlanCosts) -> float:
    """Return the cost of shared segments and of reading on from where they end."""
    lens, full = case.batch.query_lens, case.batch.num_full_pages
    total = 0.0
    for members, start, end, _ in nodes_of(tree):
        rows = int(lens[members].sum())
        tiles = -(-rows // costs.max_rows)
        total += tiles * (costs.item + costs.kv_token * (end - start) * case.page_size)
        total += rows * costs.partial
    own = full - tree.own_start_pages()
    own_tiles = -(-lens // costs.max_rows)
    return total + float((own * own_tiles).sum()) * case.page_size * costs.kv_token


@pytest.mark.parametrize(
    ("num_members", "num_pages", "is_shared"), [(2, 1, False), (2, 2, True), (8, 1, True)]
)
def test_a_segment_is_shared_if_reading_it_once_saves_more_than_it_adds(
    num_members: int, num_pages: int, is_shared: bool
) -> None:
    table = np.array([[*range(num_pages), 100 + i] for i in range(num_members)])
    tree = find_prefixes(table, np.full(num_members, num_pages))
    costs = PlanCosts(item=16, partial=4, max_rows=16)
    folded = fold_prefixes(tree, np.ones(num_members, np.int64), 16, costs)
    assert folded.num_nodes == is_shared


def test_children_of_a_node_that_goes_begin_where_it_did() -> None:
    case = case_of(
        [[1, 2, 3, 4, 10], [1, 2, 3, 4, 11], [1, 5, 6, 7, 12], [1, 5, 6, 7, 13]],
        [1] * 4,
        [9] * 4,
        2,
    )
    tree = find_prefixes(case.block_table, case.batch.num_full_pages)
    assert tree.num_nodes == 3
    # Two children would each read the page of the parent: it saves 2 tokens, and costs 4.
    folded = fold_prefixes(tree, case.batch.query_lens, 2, PlanCosts(item=0, partial=1))
    assert nodes_of(folded) == [([0, 1], 0, 4, -1), ([2, 3], 0, 4, -1)]


@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_what_lies_beyond_full_pages_is_not_read(case: Case) -> None:
    full = case.batch.num_full_pages
    other = case.block_table.copy()
    for row, pages in zip(other, full.tolist(), strict=True):
        row[pages:] = 7
    assert nodes_of(find_prefixes(other, full)) == nodes_of(find_prefixes(case.block_table, full))


@pytest.mark.parametrize(
    ("table", "full", "error", "code"),
    [
        (np.zeros(3, np.int32), np.zeros(3, np.int32), AttentionError, "attention_bad_argument"),
        (np.zeros((3, 2)), np.zeros(3, np.int32), AttentionError, "attention_bad_argument"),
        (np.zeros((3, 2), int), np.zeros(2, int), AttentionError, "attention_bad_argument"),
        (np.zeros((3, 2), int), np.zeros(3), AttentionError, "attention_bad_argument"),
        (np.zeros((1, 2), int), np.array([-1]), AttentionError, "attention_bad_argument"),
        (np.zeros((1, 2), int), np.array([3]), TableTooNarrow, "attention_table_too_narrow"),
    ],
)
def test_bad_arguments_are_refused(
    table: np.ndarray, full: np.ndarray, error: type[AttentionError], code: str
) -> None:
    with pytest.raises(error) as caught:
        find_prefixes(table, full)
    assert caught.value.code == code
