from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_backend.kernels import (
    AttentionError,
    PlanCosts,
    Planner,
    TableTooNarrow,
    find_prefixes,
    merge_partials,
    planned_attention,
    reference_attention,
)
from tests.kernels.batches import Case, case_of, cases
from tests.kernels.dense import Data, data_of, dense


def computed(
    case: Case,
    data: Data,
    way: str,
    scale: float,
    dtype: torch.dtype = torch.float32,
    **features: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return output and log-sum-exp as one of our three ways computes them."""
    if way == "planned":
        costs = PlanCosts(item=0, partial=0, max_rows=3, min_chunk_tokens=1)
        plan = Planner(case.page_size, 5, costs).plan(
            case.block_table, case.query_start, case.seq_lens
        )
        return planned_attention(*data, plan, scale=scale, dtype=dtype, **features)
    tree = None
    if way == "tree":
        tree = find_prefixes(case.block_table, case.batch.num_full_pages)
    lens = torch.from_numpy(case.query_start), torch.from_numpy(case.seq_lens)
    return reference_attention(*data, *lens, scale=scale, tree=tree, dtype=dtype, **features)


_WAYS = pytest.mark.parametrize("way", ["plain", "tree", "planned"])


def assert_near(
    found: tuple[torch.Tensor, torch.Tensor],
    wanted: tuple[torch.Tensor, torch.Tensor],
    most: float,
    most_lse: float,
) -> None:
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=0, atol=most)
    torch.testing.assert_close(found[1].double(), wanted[1], rtol=0, atol=most_lse)


@_WAYS
@settings(max_examples=40, deadline=None)
@given(case=cases(max_requests=6), seed=st.integers(0, 99))
def test_every_way_is_dense_attention(way: str, case: Case, seed: int) -> None:
    data = data_of(case, seed)
    wanted = dense(case, data, 0.35)
    assert_near(computed(case, data, way, 0.35), wanted, 2e-6, 5e-6)
    assert_near(computed(case, data, way, 0.35, torch.float64), wanted, 1e-13, 1e-13)


def two_levels() -> Case:
    """Return requests on up to three levels, of one and several query tokens, and padding."""
    return case_of(
        [[1, 2, 3, 10, 11], [1, 2, 3, 12], [1, 2, 4, 13], [], [1, 2, 4, 14, 15], [20, 2, 3]],
        [1, 3, 1, 1, 8, 2],
        [70, 55, 49, 0, 66, 48],
        16,
    )


@_WAYS
def test_big_scores_do_not_overflow(way: str) -> None:
    case = two_levels()
    data = data_of(case, 1, factor=30.0)
    wanted = dense(case, data, 1.0)
    found = computed(case, data, way, 1.0)
    # Scores are about 100 times larger than in the other tests: so are float32's steps.
    assert_near(found, wanted, 1e-4, 1e-4)
    assert_near(computed(case, data, way, 1.0, torch.float64), wanted, 1e-12, 1e-12)


@_WAYS
@pytest.mark.parametrize(
    "features",
    [
        {"softcap": 2.5},
        {"window": 1},
        {"window": 20},
        {"window": 1000},
        {"sinks": torch.tensor([0.3, -9.0, 4.0, -math.inf])},
        {"softcap": 1.5, "window": 33, "sinks": torch.tensor([1.0, 2.0, 0.0, 5.0])},
    ],
)
def test_what_changes_scores_is_the_same_in_every_way(way: str, features: dict[str, Any]) -> None:
    case = two_levels()
    data = data_of(case, 2)
    wanted = dense(case, data, 0.35, **features)
    found = computed(case, data, way, 0.35, **features)
    real = torch.arange(len(found[0])) != int(case.query_start[3])
    assert_near((found[0][real], found[1][real]), (wanted[0][real], wanted[1][real]), 2e-6, 5e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@_WAYS
def test_the_cache_may_be_of_two_bytes(way: str, dtype: torch.dtype) -> None:
    case = two_levels()
    data = data_of(case, 3, dtype=dtype)
    assert_near(computed(case, data, way, 0.35), dense(case, data, 0.35), 2e-6, 5e-6)


@_WAYS
def test_padding_has_no_output(way: str) -> None:
    case = two_levels()
    output, lse = computed(case, data_of(case, 4), way, 0.35)
    token = int(case.query_start[3])
    assert (output[token] == 0).all()
    assert (lse[token] == -math.inf).all()


def test_the_tree_decides_where_keys_are_read() -> None:
    """A member's own copy of what is shared is not read: the segment is computed once for all."""
    case = case_of([[1, 2], [1, 3]], [1, 1], [20, 20], 16)
    tree = find_prefixes(case.block_table, case.batch.num_full_pages)
    query, keys, values, table = data_of(case, 5)
    lens = torch.from_numpy(case.query_start), torch.from_numpy(case.seq_lens)
    wanted = reference_attention(query, keys, values, table, *lens, scale=0.35)
    elsewhere = table.clone()
    elsewhere[tree.order[1], 0] = 1_000_000
    found = reference_attention(query, keys, values, elsewhere, *lens, scale=0.35, tree=tree)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


def test_a_plan_of_another_batch_is_refused() -> None:
    case = two_levels()
    query, keys, values, table = data_of(case, 5)
    plan = Planner(16, 2).plan(case.block_table, case.query_start, case.seq_lens)
    wide = torch.cat((keys, keys), dim=2)
    for wrong in ((query[:-1], keys, values), (query, wide, wide)):
        with pytest.raises(AttentionError, match="query tokens and pages of 16"):
            planned_attention(*wrong, table, plan, scale=1.0)


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 4), max_size=6),
    seed=st.integers(0, 99),
    num_empty=st.integers(0, 3),
)
def test_merging_is_the_softmax_over_all_partials(
    counts: list[int], seed: int, num_empty: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_slots = sum(counts)
    outputs = torch.randn(num_slots, 2, 4, generator=generator, dtype=torch.float64)
    lse = 50 * torch.randn(num_slots, 2, generator=generator, dtype=torch.float64)
    lse[:num_empty] = -math.inf
    slots = torch.randperm(num_slots, generator=generator).int()
    ptr = torch.tensor([0, *np.cumsum(counts).tolist()], dtype=torch.int32)
    output, merged = merge_partials(outputs, lse, ptr, slots)
    for token, count in enumerate(counts):
        mine = slots[ptr[token] : ptr[token] + count].long()
        wanted = torch.logsumexp(lse[mine], 0) if count else torch.full((2,), -math.inf)
        torch.testing.assert_close(merged[token], wanted.double())
        weights = torch.exp(lse[mine] - wanted).nan_to_num(0.0)
        torch.testing.assert_close(output[token], (weights[..., None] * outputs[mine]).sum(0))


def test_merging_nothing_but_a_sink_is_the_sink() -> None:
    sinks = torch.tensor([1.5, -math.inf])
    ptr, none = torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int32)
    output, lse = merge_partials(torch.zeros(0, 2, 4), torch.zeros(0, 2), ptr, none, sinks=sinks)
    assert lse.tolist() == [[1.5, -math.inf]]
    assert not output.any()
    assert not output.isnan().any()


def test_arguments_that_do_not_fit_are_refused() -> None:
    case = two_levels()
    query, keys, values, table = data_of(case, 6)
    lens = torch.from_numpy(case.query_start), torch.from_numpy(case.seq_lens)
    wrong: list[tuple[Data, type[AttentionError]]] = [
        ((query[0], keys, values, table), AttentionError),
        ((query[:-1], keys, values, table), AttentionError),
        ((query, keys, values[:, :1], table), AttentionError),
        ((query[:, :3], keys, values, table), AttentionError),
        ((query[..., :4], keys, values, table), AttentionError),
        ((query, keys, values, table[:-1]), AttentionError),
        ((query, keys, values, table[:, :4]), TableTooNarrow),
    ]
    for arguments, error in wrong:
        with pytest.raises(error) as caught:
            reference_attention(*arguments, *lens, scale=1.0)
        assert type(caught.value) is error
    outputs, lse = torch.zeros(3, 2, 4), torch.zeros(3, 2)
    ptr, slots = torch.tensor([0, 3]), torch.arange(3)
    for merge in ((outputs[0], lse, ptr, slots), (outputs, lse[:2], ptr, slots)):
        with pytest.raises(AttentionError):
            merge_partials(*merge)
    for wrong_ptr in ([0, 2], [1, 3], [0, 3, 2, 3]):
        with pytest.raises(AttentionError, match="slot_ptr"):
            merge_partials(outputs, lse, torch.tensor(wrong_ptr), slots)
    for wrong_slots in ([0, 1, 3], [-1, 0, 1]):
        with pytest.raises(AttentionError, match="3 partials"):
            merge_partials(outputs, lse, ptr, torch.tensor(wrong_slots))
    with pytest.raises(AttentionError):
        merge_partials(outputs, lse, ptr, slots, sinks=torch.zeros(3))
