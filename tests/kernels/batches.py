"""Batches over paged caches for tests: drawn by Hypothesis, and checked against what they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from parrot_backend.kernels import PlanCosts, WorkPlan
from parrot_backend.kernels.batch import Batch
from parrot_backend.kernels.work import (
    CAUSAL,
    DIRECT,
    FLAGS,
    KV_END,
    KV_START,
    NUM_ROWS,
    ROW_START,
    SLOT_START,
    TABLE_ROW,
)

Ints = npt.NDArray[np.int32]

#: In place of pages that must not be read.
_POISON = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Case:
    """A batch with what a planner is told."""

    block_table: Ints
    query_start: Ints
    seq_lens: Ints
    page_size: int

    @property
    def batch(self) -> Batch:
        return Batch.checked(self.query_start, self.seq_lens, self.page_size)

    def permuted(self, order: list[int]) -> Case:
        """Return the same requests in another order, or some of them."""
        lens = np.diff(self.query_start)[order]
        return Case(
            self.block_table[order],
            np.concatenate(([0], np.cumsum(lens))).astype(np.int32),
            self.seq_lens[order],
            self.page_size,
        )


def case_of(tables: list[list[int]], query_lens: list[int], seq_lens: list[int], page: int) -> Case:
    """Return a batch from lists; pages that a table lacks are poison."""
    width = max((len(table) for table in tables), default=0)
    rows = [table + [_POISON] * (width - len(table)) for table in tables]
    return Case(
        np.array(rows, np.int32).reshape(len(tables), width),
        np.concatenate(([0], np.cumsum(query_lens))).astype(np.int32),
        np.array(seq_lens, np.int32),
        page,
    )


@st.composite
def trees(draw: st.DrawFn) -> list[list[int]]:
    """Draw runs of pages, each from the root of a tree up to 5 deep to one of its nodes."""
    runs: list[list[int]] = [[]]
    depths = [0]
    next_page = 0
    for _ in range(draw(st.integers(0, 7))):
        parent = draw(st.integers(0, len(runs) - 1))
        if depths[parent] == 5:
            parent = 0
        num_pages = draw(st.integers(1, 3))
        runs.append(runs[parent] + list(range(next_page, next_page + num_pages)))
        depths.append(depths[parent] + 1)
        next_page += num_pages
    return runs


@st.composite
def cases(draw: st.DrawFn, max_requests: int = 9) -> Case:
    """Draw a batch: trees up to 5 deep, ragged, padded, with pages that are equal again later."""
    page = draw(st.sampled_from([1, 2, 16, 32, 64]))
    runs = draw(trees())
    tables: list[list[int]] = []
    seq_lens, query_lens = [], []
    few, many = st.integers(0, 3), st.integers(4, max(4, max_requests))
    for index in range(draw(st.one_of(many, few, many))):
        table = list(draw(st.sampled_from(runs)))
        table += [1000 * (index + 1) + i for i in range(draw(st.integers(0, 2)))]
        if draw(st.integers(0, 4)) == 4:
            # As the pages of some node from here on, whatever stands before.
            table += draw(st.sampled_from(runs))[len(table) :]
        tables.append(table)
        most = len(table) * page
        is_padded = most == 0 or draw(st.integers(0, 9)) == 9
        seq_len = 0 if is_padded else most - draw(st.integers(0, min(page - 1, most - 1)))
        seq_lens.append(seq_len)
        most_rows = 2 if is_padded else min(8, seq_len)
        query_lens.append(draw(st.one_of(st.just(min(1, most_rows)), st.integers(0, most_rows))))
    return case_of(tables, query_lens, seq_lens, page)


@st.composite
def all_costs(draw: st.DrawFn) -> PlanCosts:
    """Draw costs, most of them such that small batches are shared and cut."""
    return PlanCosts(
        kv_token=draw(st.sampled_from([1.0, 0.3])),
        row=draw(st.sampled_from([0.0, 0.02, 1.7])),
        item=draw(st.sampled_from([0.0, 0.9, 40.0])),
        partial=draw(st.sampled_from([0.0, 0.7, 20.0])),
        max_rows=draw(st.integers(1, 5)),
        min_chunk_tokens=draw(st.sampled_from([1, 16, 40, 500])),
    )


def check_plan(plan: WorkPlan, case: Case, costs: PlanCosts, num_workers: int) -> None:
    """Check all that a plan promises."""
    check_coverage(plan, case)
    check_slots(plan)
    check_arrays(plan, case)
    assert plan.num_workers == num_workers
    assert (plan.items[:, NUM_ROWS] <= costs.max_rows).all()
    read = plan.items[:, KV_END] - plan.items[:, KV_START]
    assert plan.shared_tokens == read.sum()


def check_coverage(plan: WorkPlan, case: Case) -> None:
    """Check that each query token sees each position up to its own once, in its own pages."""
    batch = case.batch
    longest = int(batch.seq_lens.max(initial=0))
    seen = np.zeros((batch.num_tokens, longest), np.int64)
    request_of = np.repeat(np.arange(batch.num_requests), np.diff(case.query_start))
    for item in plan.items:
        start, end = int(item[KV_START]), int(item[KV_END])
        assert start < end
        assert start % case.page_size == 0
        pages = slice(start // case.page_size, -(-end // case.page_size))
        for token in plan.tokens[item[ROW_START] : item[ROW_START] + item[NUM_ROWS]]:
            row, lender = case.block_table[request_of[token]], case.block_table[item[TABLE_ROW]]
            assert (row[pages] == lender[pages]).all()
            stop = min(end, plan.positions[token] + 1) if item[FLAGS] & CAUSAL else end
            seen[token, start:stop] += 1
    wanted = np.zeros_like(seen)
    for request in range(batch.num_requests):
        for j in range(int(batch.query_lens[request])):
            end = batch.seq_lens[request] - batch.query_lens[request] + j + 1
            wanted[batch.query_start[request] + j, :end] = 1
            assert plan.positions[batch.query_start[request] + j] == end - 1
    assert (seen == wanted).all()


def check_slots(plan: WorkPlan) -> None:
    """Check that each slot is one token's, and that direct means one slot."""
    assert sorted(plan.slots.tolist()) == list(range(plan.num_slots))
    owner = np.full(plan.num_slots, -1)
    for item in plan.items:
        of_item = slice(item[SLOT_START], item[SLOT_START] + item[NUM_ROWS])
        assert (owner[of_item] == -1).all()
        owner[of_item] = plan.tokens[item[ROW_START] : item[ROW_START] + item[NUM_ROWS]]
    for token in range(plan.num_tokens):
        slots = plan.slots[plan.slot_ptr[token] : plan.slot_ptr[token + 1]]
        assert (owner[slots] == token).all()
        assert (np.diff(slots) > 0).all()
    num_slots = np.diff(plan.slot_ptr)
    for item in plan.items:
        tokens = plan.tokens[item[ROW_START] : item[ROW_START] + item[NUM_ROWS]]
        assert (num_slots[tokens] == 1).all() == bool(item[FLAGS] & DIRECT)
        assert len(set((num_slots[tokens] == 1).tolist())) == 1


def check_arrays(plan: WorkPlan, case: Case) -> None:
    """Check types, shapes and the order of everything."""
    for name in ("items", "tokens", "positions", "slot_ptr", "slots", "worker_ptr"):
        array = getattr(plan, name)
        assert array.dtype == np.int32, name
        assert array.flags.c_contiguous, name
    assert plan.items.shape == (plan.num_items, 8)
    assert plan.num_tokens == len(plan.positions) == len(plan.slot_ptr) - 1
    real = [t for t in range(plan.num_tokens) if plan.positions[t] >= 0]
    assert sorted(plan.tokens.tolist()) == real
    assert plan.worker_ptr[0] == 0
    assert plan.worker_ptr[-1] == plan.num_items
    assert (np.diff(plan.worker_ptr) >= 0).all()
    assert case.batch.num_tokens == plan.num_tokens
