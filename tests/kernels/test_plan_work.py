from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_backend.kernels import (
    AttentionError,
    PlanCosts,
    Planner,
    TableTooNarrow,
    TreeMismatch,
    WorkPlan,
    find_prefixes,
    fold_prefixes,
    plan_work,
)
from parrot_backend.kernels.work import (
    CAUSAL,
    DIRECT,
    FLAGS,
    KV_END,
    KV_START,
    NUM_ROWS,
    ROW_START,
    TABLE_ROW,
)
from tests.kernels.batches import Case, all_costs, case_of, cases, check_plan

_ARRAYS = ("items", "tokens", "positions", "slot_ptr", "slots", "worker_ptr")
_COUNTS = ("num_slots", "num_tokens", "shared_tokens", "plain_tokens", "page_size")


def planned(planner: Planner, case: Case) -> WorkPlan:
    return planner.plan(case.block_table, case.query_start, case.seq_lens)


def assert_same(left: WorkPlan, right: WorkPlan) -> None:
    for name in _ARRAYS:
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    for name in _COUNTS:
        assert getattr(left, name) == getattr(right, name), name


def by_hand(case: Case, costs: PlanCosts, num_workers: int) -> WorkPlan:
    """Return the plan made step by step, all of it in numpy."""
    batch = case.batch
    tree = find_prefixes(case.block_table, batch.num_full_pages)
    tree = fold_prefixes(tree, batch.query_lens, case.page_size, costs)
    return plan_work(
        tree,
        case.query_start,
        case.seq_lens,
        case.page_size,
        num_workers=num_workers,
        costs=costs,
    )


@settings(deadline=None)
@given(case=cases(), costs=all_costs(), num_workers=st.integers(1, 9))
def test_each_pair_of_token_and_position_is_covered_once(
    case: Case, costs: PlanCosts, num_workers: int
) -> None:
    check_plan(by_hand(case, costs, num_workers), case, costs, num_workers)


@settings(deadline=None)
@given(case=cases(), costs=all_costs(), num_workers=st.integers(1, 9))
def test_native_plans_are_those_of_numpy(case: Case, costs: PlanCosts, num_workers: int) -> None:
    planner = Planner(case.page_size, num_workers, costs)
    assert planner.is_native
    assert_same(planned(planner, case), by_hand(case, costs, num_workers))
    in_numpy = Planner(case.page_size, num_workers, costs, is_native=False)
    assert not in_numpy.is_native
    assert_same(planned(in_numpy, case), by_hand(case, costs, num_workers))


@st.composite
def histories(draw: st.DrawFn) -> list[Case]:
    """Draw steps of an engine: requests join, leave, grow, lose pages, and change places."""
    page = draw(st.sampled_from([1, 2, 16]))
    next_page = 0
    running: list[tuple[list[int], int]] = []
    steps = []
    for _ in range(draw(st.integers(1, 8))):
        for _ in range(draw(st.integers(0, 3))):
            table: list[int] = []
            if running:
                other = draw(st.sampled_from(running))[0]
                table = other[: draw(st.integers(0, len(other)))]
            num_new = draw(st.integers(1, 3))
            table = [*table, *range(next_page, next_page + num_new)]
            next_page += num_new
            running.append((table, draw(st.integers(1, len(table) * page))))
        change = draw(st.sampled_from(["none", "leave", "reorder", "preempt", "move"]))
        if running and change == "leave":
            running.pop(draw(st.integers(0, len(running) - 1)))
        elif running and change == "preempt":
            index = draw(st.integers(0, len(running) - 1))
            running[index] = ([next_page], 1)
            next_page += 1
        elif running and change == "move":
            # Another request's pages in the same row: what an engine does when one ends.
            running[0] = draw(st.sampled_from(running))
        elif change == "reorder":
            running = draw(st.permutations(running))
        grown = []
        for table, seq_len in running:
            if seq_len == len(table) * page:
                table = [*table, next_page]
                next_page += 1
            grown.append((table, seq_len + 1))
        running = grown
        query_lens = [draw(st.integers(1, min(3, seq_len))) for _, seq_len in running]
        steps.append(
            case_of([table for table, _ in running], query_lens, [n for _, n in running], page)
        )
    return steps


@settings(deadline=None)
@given(steps=histories(), costs=all_costs(), is_native=st.booleans())
def test_a_planner_is_never_stale(steps: list[Case], costs: PlanCosts, is_native: bool) -> None:
    planner = Planner(steps[0].page_size, 3, costs, is_native=is_native)
    plans = [planned(planner, case) for case in steps]
    for case, plan in zip(steps, plans, strict=True):
        check_plan(plan, case, costs, 3)
        assert_same(plan, planned(Planner(case.page_size, 3, costs), case))


@settings(max_examples=30, deadline=None)
@given(case=cases(), costs=all_costs(), data=st.data())
def test_a_hint_leaves_out_and_never_adds(
    case: Case, costs: PlanCosts, data: st.DataObject
) -> None:
    count = len(case.seq_lens)
    hint = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)
    planner = Planner(case.page_size, 2, costs)
    arrays = (case.block_table, case.query_start, case.seq_lens)
    plan = planner.plan(*arrays, hint=hint)
    check_plan(plan, case, costs, 2)
    assert_same(plan, Planner(case.page_size, 2, costs, is_native=False).plan(*arrays, hint=hint))
    for item in plan.items[plan.items[:, NUM_ROWS] > 1]:
        tokens = plan.tokens[item[ROW_START] : item[ROW_START] + item[NUM_ROWS]]
        requests = {int(np.searchsorted(case.query_start, t, "right")) - 1 for t in tokens}
        assert len(requests) == 1 or all(hint[request] for request in requests)


def worker_costs(plan: WorkPlan, costs: PlanCosts) -> list[float]:
    rows = plan.items[:, NUM_ROWS]
    tokens = plan.items[:, KV_END] - plan.items[:, KV_START]
    each = tokens * (costs.kv_token + costs.row * rows) + costs.item + costs.partial * rows
    ends = np.concatenate(([0.0], np.cumsum(each)))[plan.worker_ptr]
    found: list[float] = np.diff(ends).tolist()
    return found


@settings(deadline=None)
@given(case=cases(), costs=all_costs(), num_workers=st.integers(1, 9))
def test_no_worker_has_much_more_than_its_share(
    case: Case, costs: PlanCosts, num_workers: int
) -> None:
    """A cut falls within the shortest chunk of where it should; a piece pays for being one."""
    plan = planned(Planner(case.page_size, num_workers, costs), case)
    rows = int(plan.items[:, NUM_ROWS].max(initial=0))
    least_tokens = -(-costs.min_chunk_tokens // case.page_size) * case.page_size
    fixed = costs.item + costs.partial * rows
    shift = fixed + least_tokens * (costs.kv_token + costs.row * rows)
    share = sum(worker_costs(plan, costs)) / num_workers
    assert max(worker_costs(plan, costs)) <= share + 2 * shift + fixed + 1e-6


def test_a_big_batch_is_balanced_within_a_twentieth() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 16, 256)
    tables = [[10_000 + 384 * g + i for i in range(384)] for g in groups.tolist()]
    tables = [[*table, *range(100 * i, 100 * i + 32)] for i, table in enumerate(tables)]
    seq_lens = (384 * 16 + rng.integers(1, 512, 256)).tolist()
    case = case_of(tables, [1] * 256, seq_lens, 16)
    for num_workers in (2, 16, 64):
        plan = planned(Planner(16, num_workers), case)
        loads = worker_costs(plan, PlanCosts())
        assert max(loads) <= 1.05 * sum(loads) / num_workers
    assert plan.plain_tokens == sum(seq_lens)
    assert plan.shared_tokens < plan.plain_tokens / 8


def test_requests_that_share_nothing_and_are_not_cut_are_direct() -> None:
    case = case_of([[1, 2], [3, 4], [5, 6]], [1, 1, 1], [30, 25, 20], 16)
    plan = planned(Planner(16, 1), case)
    assert plan.items[:, FLAGS].tolist() == [DIRECT] * 3
    assert plan.plain_tokens == plan.shared_tokens == 75


def test_several_query_tokens_see_up_to_themselves() -> None:
    case = case_of([[1, 2], [1, 3]], [3, 1], [7, 5], 4)
    plan = planned(Planner(4, 1, PlanCosts(item=0, partial=0, max_rows=2)), case)
    found = [
        (plan.tokens[i[ROW_START] : i[ROW_START] + i[NUM_ROWS]].tolist(), *i[[2, 3, 4, 6]].tolist())
        for i in plan.items
    ]
    assert found == [
        ([0, 1], 0, 0, 4, 0),
        ([2, 3], 0, 0, 4, 0),
        ([0, 1], 0, 4, 6, CAUSAL),
        ([2], 0, 4, 7, 0),
        ([3], 1, 4, 5, 0),
    ]
    assert plan.positions.tolist() == [4, 5, 6, 4]


@pytest.mark.parametrize("is_native", [True, False])
def test_padding_has_no_items(is_native: bool) -> None:
    case = case_of([[1, 2], [1, 3], []], [1, 0, 2], [20, 20, 0], 16)
    plan = planned(Planner(16, 4, is_native=is_native), case)
    assert plan.tokens.tolist() == [0]
    assert plan.positions.tolist() == [19, -1, -1]
    assert plan.slot_ptr.tolist() == [0, 1, 1, 1]
    assert plan.items[:, [TABLE_ROW, KV_START, KV_END]].tolist() == [[0, 0, 20]]


@pytest.mark.parametrize("is_native", [True, False])
def test_a_batch_of_nothing_is_planned(is_native: bool) -> None:
    plan = planned(Planner(16, 4, is_native=is_native), case_of([], [], [], 16))
    assert plan.num_items == plan.num_slots == plan.num_tokens == 0
    assert plan.worker_ptr.tolist() == [0] * 5


def test_a_table_may_be_a_view_of_a_wider_one_and_of_other_integers() -> None:
    case = case_of([[1, 2, 3], [1, 2, 4]], [1, 1], [40, 42], 16)
    wanted = planned(Planner(16, 2), case)
    wide = np.full((5, 9), 77, np.int32)
    wide[1:5:2, :3] = case.block_table
    for table in (wide[1:5:2, :3], case.block_table.astype(np.int64), case.block_table.T.copy().T):
        plan = Planner(16, 2).plan(table, case.query_start.astype(np.int64), case.seq_lens)
        assert_same(plan, wanted)


_TABLE, _QUERY_START, _SEQ_LENS = (
    np.zeros((2, 2), np.int32),
    np.array([0, 1, 2]),
    np.array([20, 20]),
)


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize(
    ("table", "query_start", "seq_lens", "error"),
    [
        (_TABLE, _QUERY_START, np.array([20, 33]), TableTooNarrow),
        (_TABLE[:1], _QUERY_START, _SEQ_LENS, AttentionError),
        (_TABLE[0], _QUERY_START, _SEQ_LENS, AttentionError),
        (_TABLE, _QUERY_START[:2], _SEQ_LENS, AttentionError),
        (_TABLE, np.array([0, 2, 1]), _SEQ_LENS, AttentionError),
        (_TABLE, np.array([1, 2, 3]), _SEQ_LENS, AttentionError),
        (_TABLE, np.array([0, 9, 10]), np.array([5, 20]), AttentionError),
        (_TABLE, _QUERY_START, np.array([-1, 20]), AttentionError),
        (_TABLE, _QUERY_START.astype(float), _SEQ_LENS, AttentionError),
        (_TABLE.astype(float), _QUERY_START, _SEQ_LENS, AttentionError),
        (_TABLE.astype(np.int64) + 2**32, _QUERY_START, _SEQ_LENS, AttentionError),
        (_TABLE, _QUERY_START, _SEQ_LENS + 2**32, AttentionError),
    ],
)
def test_bad_batches_are_refused(
    table: np.ndarray,
    query_start: np.ndarray,
    seq_lens: np.ndarray,
    error: type[AttentionError],
    is_native: bool,
) -> None:
    with pytest.raises(error) as caught:
        Planner(16, 2, is_native=is_native).plan(table, query_start, seq_lens)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rows": 0},
        {"min_chunk_tokens": 0},
        {"item": -1.0},
        {"row": float("nan")},
        {"partial": float("inf")},
        {"kv_token": 0.0, "row": 0.0},
    ],
)
def test_bad_costs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(AttentionError):
        PlanCosts(**wrong)


def test_bad_limits_are_refused() -> None:
    with pytest.raises(AttentionError):
        Planner(0, 1)
    with pytest.raises(AttentionError):
        Planner(16, 0)
    with pytest.raises(AttentionError):
        Planner(16, 2).plan(_TABLE, _QUERY_START, _SEQ_LENS, hint=np.ones(3, np.bool_))


def test_a_tree_of_another_batch_is_refused() -> None:
    tree = find_prefixes(np.array([[1, 2], [1, 2]]), np.array([2, 2]))
    with pytest.raises(TreeMismatch, match="2 requests"):
        plan_work(tree, np.array([0, 1]), np.array([33]), 16, num_workers=1)
    with pytest.raises(TreeMismatch, match="request 1"):
        plan_work(tree, np.array([0, 1, 2]), np.array([33, 32]), 16, num_workers=1)
    with pytest.raises(AttentionError, match="num_workers"):
        plan_work(tree, np.array([0, 1, 2]), np.array([33, 33]), 16, num_workers=0)
