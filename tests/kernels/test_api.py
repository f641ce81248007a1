from __future__ import annotations

import math
import textwrap
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_backend.kernels as kernels
from parrot_backend.kernels import (
    AttentionError,
    LayerAttention,
    Planner,
    UnsupportedAttention,
    abilities_of,
    find_prefixes,
    planner_for,
    reference_attention,
    shared_prefix_attention,
)
from tests.kernels.batches import Case, case_of, cases
from tests.kernels.dense import HEAD_SIZE, HEADS, KV_HEADS, data_of, dense

_CPU = torch.device("cpu")
#: Largest error on numbers of N(0, 1); float32 sums in another order than the reference.
_TOLERANCES = {torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def layer_of(case: Case, dtype: torch.dtype = torch.float32) -> LayerAttention:
    return LayerAttention(
        dtype=dtype,
        kv_dtype=dtype,
        head_size=HEAD_SIZE,
        num_query_heads=HEADS,
        num_kv_heads=KV_HEADS,
        page_size=case.page_size,
    )


def two_groups() -> Case:
    return case_of(
        [[1, 2, 3], [1, 2, 4], [1, 2, 5], [7, 8], [7, 9, 10], [], [1, 6]],
        [1, 4, 1, 2, 1, 1, 1],
        [40, 47, 33, 20, 48, 0, 30],
        16,
    )


@pytest.mark.parametrize("dtype", list(_TOLERANCES))
@settings(max_examples=25, deadline=None)
@given(case=cases(max_requests=6).filter(lambda case: case.page_size > 2), seed=st.integers(0, 9))
def test_the_cpu_computes_dense_attention(dtype: torch.dtype, case: Case, seed: int) -> None:
    data = data_of(case, seed, dtype=dtype)
    planner = planner_for(layer_of(case, dtype), _CPU)
    plan = planner.plan(case.block_table, case.query_start, case.seq_lens)
    output, lse = shared_prefix_attention(*data, plan, scale=0.35)
    wanted, wanted_lse = dense(case, data, 0.35)
    assert output.dtype is dtype
    torch.testing.assert_close(output.double(), wanted, rtol=0, atol=_TOLERANCES[dtype])
    torch.testing.assert_close(lse.double(), wanted_lse, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "features",
    [{"softcap": 2.5}, {"window": 20}, {"sinks": torch.tensor([0.3, -9.0, 4.0, 1.0])}],
)
def test_features_reach_the_kernel(features: dict[str, Any]) -> None:
    case = two_groups()
    data = data_of(case, 1)
    plan = planner_for(layer_of(case), _CPU).plan(case.block_table, case.query_start, case.seq_lens)
    found = shared_prefix_attention(*data, plan, scale=0.35, **features)
    wanted = dense(case, data, 0.35, **features)
    real = torch.from_numpy(plan.positions) >= 0
    torch.testing.assert_close(found[0].double()[real], wanted[0][real], rtol=0, atol=4e-6)
    torch.testing.assert_close(found[1].double()[real], wanted[1][real], rtol=0, atol=1e-5)
    assert not found[0][~real].any()
    nothing = features.get("sinks", torch.full((HEADS,), -math.inf))
    assert torch.equal(found[1][~real], nothing.expand_as(found[1][~real]))


def test_what_a_kernel_does_not_compute_is_refused_with_the_reason() -> None:
    case = two_groups()
    layer = layer_of(case)
    for change, reason in (
        ({"has_alibi": True}, "alibi"),
        ({"is_latent": True}, "latent"),
        ({"head_size": 20}, "head_size"),
        ({"num_kv_heads": 0}, "head_group"),
        ({"kv_dtype": torch.float8_e4m3fn}, "kv_dtype"),
    ):
        with pytest.raises(UnsupportedAttention, match=reason) as caught:
            planner_for(replace(layer, **change), _CPU)
        assert caught.value.code == "attention_unsupported"
    with pytest.raises(UnsupportedAttention, match="meta"):
        abilities_of(torch.device("meta"))


def test_tensors_that_do_not_fit_are_refused() -> None:
    case = two_groups()
    query, keys, values, table = data_of(case, 2)
    plan = Planner(16, 2).plan(case.block_table, case.query_start, case.seq_lens)
    for wrong in (
        (query[0], keys, values, table),
        (query, keys[0], values[0], table),
        (query, keys, values[:-1], table),
        (query, keys, values.double(), table),
        (query[..., :8], keys, values, table),
        (query[:-1], keys, values, table),
        (query, keys, values, table.long()),
        (query, keys, values, table[:-1]),
        (query, keys, values, table[:, :2]),
        (query, keys, values, table.to("meta")),
    ):
        with pytest.raises(AttentionError):
            shared_prefix_attention(*wrong, plan, scale=0.35)
    for wrong_scale in (0.0, -1.0, math.nan):
        with pytest.raises(AttentionError):
            shared_prefix_attention(query, keys, values, table, plan, scale=wrong_scale)


def test_a_plan_that_reads_beyond_the_block_table_is_refused_on_any_device() -> None:
    """A GPU would read whatever lies there."""
    case = two_groups()
    data = data_of(case, 7)
    plan = Planner(16, 2).plan(case.block_table, case.query_start, case.seq_lens)
    for device in ("cpu", "meta"):
        query, keys, values, table = (each.to(device) for each in data)
        for short in (table[:-1], table[:, :2]):
            with pytest.raises(AttentionError, match=r"reads \[7, 3\] of a block table"):
                shared_prefix_attention(query, keys, values, short, plan, scale=0.35)


def test_a_page_that_the_cache_lacks_is_refused_where_it_is_read() -> None:
    case = two_groups()
    query, keys, values, table = data_of(case, 3)
    plan = Planner(16, 2).plan(case.block_table, case.query_start, case.seq_lens)
    wanted = shared_prefix_attention(query, keys, values, table, plan, scale=0.35)
    for page in (-1, len(keys), 2**31 - 1):
        beyond, unread = table.clone(), table.clone()
        beyond[0, 2] = page  # the last page of the first request
        with pytest.raises(AttentionError, match="block_table has pages"):
            shared_prefix_attention(query, keys, values, beyond, plan, scale=0.35)
        unread[3, 2] = page  # this one has two pages
        found = shared_prefix_attention(query, keys, values, unread, plan, scale=0.35)
        assert torch.equal(found[0], wanted[0])


def test_a_plan_for_pages_of_another_size_is_refused() -> None:
    case = two_groups()
    data = data_of(case, 4)
    narrow = np.arange(2 * len(case.seq_lens) * 3, dtype=np.int32).reshape(-1, 6)
    plan = Planner(8, 2).plan(narrow, case.query_start, case.seq_lens)
    with pytest.raises(AttentionError, match="pages of 8 tokens, not of 16"):
        shared_prefix_attention(*data, plan, scale=0.35)


def test_arrays_and_tensors_are_not_taken_for_each_other() -> None:
    case = two_groups()
    query, keys, values, table = data_of(case, 5)
    arrays: list[Any] = [case.block_table, case.query_start, case.seq_lens]
    for at in range(3):
        for other in (torch.from_numpy(arrays[at]), arrays[at].tolist(), arrays[at][0]):
            wrong = [*arrays]
            wrong[at] = other
            for is_native in (True, False):
                with pytest.raises(AttentionError):
                    Planner(16, 2, is_native=is_native).plan(*wrong)
    hints: list[Any] = [[True] * 7, torch.ones(7, dtype=torch.bool), np.ones(7), np.ones(6, bool)]
    for hint in hints:
        with pytest.raises(AttentionError, match="hint"):
            Planner(16, 2).plan(*arrays, hint=hint)
    full: Any = torch.ones(7, dtype=torch.int32)
    with pytest.raises(AttentionError, match="numpy array, not Tensor"):
        find_prefixes(case.block_table, full)
    plan = Planner(16, 2).plan(*arrays)
    tensors: list[Any] = [query, keys, values, table]
    for at in range(4):
        wrong = [*tensors]
        wrong[at] = wrong[at].numpy()
        with pytest.raises(AttentionError, match="must be tensors"):
            shared_prefix_attention(wrong[0], wrong[1], wrong[2], wrong[3], plan, scale=0.35)


def test_the_example_of_the_package_runs() -> None:
    """Three requests, two of which begin with the same two pages."""
    text = (kernels.__doc__ or "").split("::\n")[1].split("\nA plan is made")[0]
    generator = torch.Generator().manual_seed(0)
    names: dict[str, Any] = {name: getattr(kernels, name) for name in kernels.__all__}
    names |= {
        "torch": torch,
        "query": torch.randn(3, 32, 128, generator=generator).bfloat16(),
        "key_pages": torch.randn(9, 8, 16, 128, generator=generator).bfloat16(),
        "value_pages": torch.randn(9, 8, 16, 128, generator=generator).bfloat16(),
        "table": np.array([[1, 2, 3], [1, 2, 4], [5, 6, 7]], np.int32),
        "query_start": np.array([0, 1, 2, 3], np.int32),
        "seq_lens": np.array([40, 48, 33], np.int32),
    }
    exec(textwrap.dedent(text), names)
    batch = [torch.from_numpy(names[name]) for name in ("table", "query_start", "seq_lens")]
    tensors = [names[name] for name in ("query", "key_pages", "value_pages")]
    wanted, _ = reference_attention(
        tensors[0],
        tensors[1],
        tensors[2],
        batch[0],
        batch[1],
        batch[2],
        scale=128**-0.5,
        dtype=torch.float64,
    )
    error = (names["output"].double() - wanted).abs().max()
    assert error <= _TOLERANCES[torch.bfloat16]
    assert names["lse"].shape == (3, 32)


def test_public_names_exist_and_are_in_order() -> None:
    names = kernels.__all__
    assert sorted(set(names)) == names
    assert all(hasattr(kernels, name) for name in names)
