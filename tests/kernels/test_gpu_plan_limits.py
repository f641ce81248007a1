"""What is captured in a graph has no other way, so there must always be a plan that fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed on this platform")

from parrot_backend.kernels import PlanCosts, Planner
from parrot_backend.kernels.gpu import PlanLimits
from tests.kernels.batches import Case, case_of, cases

COSTS = st.builds(
    PlanCosts,
    row=st.sampled_from([0.0, 1 / 46, 1.7]),
    item=st.sampled_from([0.0, 16.0]),
    partial=st.sampled_from([0.0, 8.0]),
    max_rows=st.integers(1, 16),
    min_chunk_tokens=st.sampled_from([1, 16, 128]),
)


def unshared_fits(case: Case, costs: PlanCosts, num_workers: int, padding: int) -> None:
    """Check the plan without sharing against limits for batches of just this size."""
    requests, tokens = len(case.seq_lens), int(case.query_start[-1])
    planner = Planner(case.page_size, num_workers, costs)
    nobody = np.zeros(requests, np.bool_)
    plan = planner.plan(case.block_table, case.query_start, case.seq_lens, hint=nobody)
    assert plan.plain_tokens == plan.shared_tokens
    limits = PlanLimits.for_batches(
        requests + padding, tokens + padding, num_workers=num_workers, max_rows=costs.max_rows
    )
    limits.check(plan, tokens + padding)
    assert limits.why_too_large(plan, tokens + padding) is None


@given(
    case=cases(max_requests=12),
    costs=COSTS,
    num_workers=st.integers(1, 40),
    padding=st.integers(0, 4),
)
@settings(deadline=None)
def test_without_sharing_any_batch_fits(
    case: Case, costs: PlanCosts, num_workers: int, padding: int
) -> None:
    unshared_fits(case, costs, num_workers, padding)


@given(
    lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=40),
    num_workers=st.integers(1, 264),
    costs=COSTS,
)
@settings(max_examples=50, deadline=None)
def test_without_sharing_any_decode_batch_fits(
    lengths: list[int], num_workers: int, costs: PlanCosts
) -> None:
    tables = [list(range(-(-length // 16))) for length in lengths]
    queries = [int(length > 0) for length in lengths]
    unshared_fits(case_of(tables, queries, lengths, 16), costs, num_workers, 0)


def comb(num_requests: int) -> Case:
    """Return requests of which each leaves the common prefix one run of pages after the last."""
    runs = [list(range(8 * i, 8 * i + 8)) for i in range(num_requests)]
    tables = [
        [page for run in runs[: i + 1] for page in run] + [1000 + i] for i in range(num_requests)
    ]
    lengths = [16 * len(table) for table in tables]
    return case_of(tables, [1] * num_requests, lengths, 16)


def test_a_deep_tree_does_not_fit() -> None:
    # Else nothing would have to be planned without sharing, and the limits were for nothing.
    case = comb(40)
    costs = PlanCosts(item=0, partial=0, max_rows=16)
    plan = Planner(16, 4, costs).plan(case.block_table, case.query_start, case.seq_lens)
    limits = PlanLimits.for_batches(40, 40, num_workers=4, max_rows=16)
    assert limits.why_too_large(plan) is not None
    unshared_fits(case, costs, 4, 0)
