"""Which requests of a batch share reads, and which are left to vLLM's own kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.kernels import PlanCosts, WorkPlan
from parrot_backend.kernels.work import KV_END, KV_START, NUM_ROWS, ROW_START
from parrot_backend.vllm_compat.step_batch import StepBatch
from parrot_backend.vllm_plugin.attention_step import MAX_QUERY_TOKENS, SharedStep, StepSharing

PAGE = 16

#: Sharing pays if it saves a single token.
FREE = PlanCosts(row=0.0, item=0.0, partial=0.0, max_rows=64, min_chunk_tokens=1, min_saving=1.0)


def batch(*requests: tuple[list[int], int, int]) -> StepBatch:
    """Return a batch of requests, each with its pages, its length and its query tokens."""
    table = np.zeros((len(requests), 12), np.int32)
    for row, (pages, _, _) in enumerate(requests):
        table[row, : len(pages)] = pages
    starts = np.cumsum([0, *(queries for _, _, queries in requests)]).astype(np.int32)
    return StepBatch(table, starts, np.array([length for _, length, _ in requests], np.int32))


def planned(step: StepBatch, costs: PlanCosts = FREE) -> SharedStep | None:
    return StepSharing(PAGE, 2, costs, least_saving_tokens=1).plan(step)


def decode(first: list[int], own: int, length: int = 70) -> tuple[list[int], int, int]:
    return [*first, own, own + 1, own + 2, own + 3], length, 1


SHARED = [1, 2, 3]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(batch(), id="nobody"),
        pytest.param(batch(decode(SHARED, 10)), id="alone"),
        pytest.param(batch(decode([1, 2], 10), decode([3, 4], 20)), id="nothing in common"),
        pytest.param(batch(decode([1], 10, 9), decode([1], 20, 9)), id="no page is full"),
        pytest.param(
            batch((SHARED, 48, 32), (SHARED, 48, 32)), id="both compute the page that they share"
        ),
        pytest.param(
            batch(decode(SHARED, 10), ([*SHARED, 20, 21, 22, 23], 110, 40)), id="one prefills"
        ),
        pytest.param(batch(decode(SHARED, 10), ([], 0, 0)), id="the other is padding"),
    ],
)
def test_vllm_computes_steps_in_which_nothing_is_shared(step: StepBatch) -> None:
    assert planned(step) is None


def test_a_batch_of_members_is_computed_whole() -> None:
    step = planned(batch(decode(SHARED, 10), decode(SHARED, 20), decode(SHARED, 30)))
    assert step is not None
    assert step.tokens is step.rest is step.rest_tokens is None
    assert step.kv_tokens_saved == 2 * 48
    assert step.work.plain_tokens == 3 * 70


def test_drafts_share_too() -> None:
    pages = [*SHARED, 10, 11, 12, 13]
    other = [*SHARED, 20, 21, 22, 23]
    step = planned(batch((pages, 70, MAX_QUERY_TOKENS), (other, 71, 3)))
    assert step is not None
    assert step.work.num_tokens == MAX_QUERY_TOKENS + 3


def test_who_prefills_and_who_is_alone_is_left_to_vllm() -> None:
    prefill = ([*SHARED, 40, 41, 42, 43], 110, MAX_QUERY_TOKENS + 1)
    step = planned(
        batch(decode([8, 9], 50), decode(SHARED, 10), prefill, decode(SHARED, 20), ([], 0, 0))
    )
    assert step is not None
    assert step.tokens is not None
    assert step.rest is not None
    assert step.rest_tokens is not None
    after = 2 + MAX_QUERY_TOKENS + 1
    assert step.tokens.tolist() == [1, after]
    assert step.rest.tolist() == [0, 2, 4]
    assert step.rest_tokens.tolist() == [0, *range(2, after)]
    assert step.batch.seq_lens.tolist() == [70, 70]
    assert step.kv_tokens_saved == 48


def test_what_would_save_too_little_is_not_shared() -> None:
    step = batch(decode(SHARED, 10), decode(SHARED, 20))
    assert planned(step, PlanCosts(row=0.0, item=0.0, partial=0.0, min_saving=48.0)) is not None
    assert planned(step, PlanCosts(row=0.0, item=0.0, partial=0.0, min_saving=49.0)) is None


def test_where_our_kernel_is_faster_anyway_it_takes_all() -> None:
    prefill = ([*SHARED, 40, 41, 42, 43], 110, 62)
    sharing = StepSharing(PAGE, 2, FREE, takes_all=True, least_saving_tokens=1)
    step = sharing.plan(batch(decode([8, 9], 50), decode(SHARED, 10), prefill, ([], 0, 0)))
    assert step is not None
    assert step.tokens is step.requests is step.rest is step.rest_tokens is None
    assert step.work.num_tokens == 64
    assert step.kv_tokens_saved == 48
    alone = sharing.plan(batch(decode([8, 9], 50)))
    assert alone is not None
    assert alone.kv_tokens_saved == 0


@pytest.mark.parametrize("takes_all", [False, True])
def test_what_saves_little_is_not_shared_whoever_computes_it(takes_all: bool) -> None:
    step = batch(decode(SHARED, 10), decode(SHARED, 20))
    for least, shares in ((48, True), (49, False)):
        sharing = StepSharing(PAGE, 2, FREE, takes_all=takes_all, least_saving_tokens=least)
        found = sharing.plan(step)
        assert (found is not None and found.kv_tokens_saved == 48) is shares
        if takes_all:
            assert found is not None
            assert found.work.plain_tokens == 140
            assert found.work.shared_tokens == 140 - 48 * shares


def test_a_captured_batch_is_planned_whole_whatever_it_saves() -> None:
    sharing = StepSharing(PAGE, 2, FREE, least_saving_tokens=1)
    padded = batch(decode([8, 9], 50), decode(SHARED, 10), decode(SHARED, 20), ([], 0, 0))
    for may_share in (True, False):
        step = sharing.plan_whole(padded, may_share=may_share)
        assert step.tokens is step.requests is step.rest is step.rest_tokens is None
        assert step.work.num_tokens == 3
        assert step.work.plain_tokens == 210
        assert step.kv_tokens_saved == 48 * may_share
    assert sharing.plan_whole(batch(decode(SHARED, 10))).kv_tokens_saved == 0


def test_what_does_not_fit_is_planned_without_sharing(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def refuse(work: WorkPlan) -> str:
        asked.append(work.plain_tokens - work.shared_tokens)
        return "too many items"

    sharing = StepSharing(PAGE, 2, FREE, least_saving_tokens=1, why_too_large=refuse)
    step = batch(decode(SHARED, 10), decode(SHARED, 20))
    assert sharing.plan(step) is None
    assert sharing.plan_whole(step).kv_tokens_saved == 0
    # A plan that shares nothing fits by the limits, and is not asked about.
    assert asked == [48, 48]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@st.composite
def batches(draw: st.DrawFn) -> StepBatch:
    """Draw a batch whose requests begin with one of a few runs of pages."""
    requests = []
    for number in range(draw(st.integers(0, 9))):
        known = draw(st.integers(0, 4))
        base = 100 * draw(st.integers(1, 3))
        own = 1000 + 20 * number
        pages = [*range(base, base + known), *range(own, own + 12 - known)]
        length = draw(st.integers(0, 12 * PAGE))
        queries = draw(st.sampled_from([0, 1, 1, 1, 2, MAX_QUERY_TOKENS, MAX_QUERY_TOKENS + 1, 90]))
        requests.append((pages, length, min(queries, length)))
    return batch(*requests)


@given(batches())
def test_each_query_token_is_computed_once(step: StepBatch) -> None:
    found = planned(step)
    if found is None:
        return
    num_tokens = int(step.query_start[-1])
    ours = range(num_tokens) if found.tokens is None else found.tokens.tolist()
    others = [] if found.rest_tokens is None else found.rest_tokens.tolist()
    assert sorted([*ours, *others]) == list(range(num_tokens))
    assert sorted(found.work.tokens.tolist()) == list(range(len(ours)))
    seen = np.zeros(len(ours), np.int64)
    for item in found.work.items:
        rows = found.work.tokens[item[ROW_START] : item[ROW_START] + item[NUM_ROWS]]
        seen[rows] += item[KV_END] - item[KV_START]
    assert (seen > found.work.positions).all()
    assert 0 < found.kv_tokens_saved < int(step.seq_lens.sum())
