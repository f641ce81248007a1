from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from parrot_backend.kernels import (
    KernelAbilities,
    LayerAttention,
    PlainReason,
    PlanCosts,
    Planner,
    errors,
    saving,
    why_no_gain,
    why_plain,
)
from tests.kernels.batches import case_of

_LAYER = LayerAttention(
    dtype=torch.bfloat16,
    kv_dtype=torch.bfloat16,
    head_size=128,
    num_query_heads=32,
    num_kv_heads=8,
    page_size=16,
)
_LITTLE = KernelAbilities(
    dtypes=frozenset({torch.bfloat16}),
    head_sizes=frozenset({128}),
    page_sizes=frozenset({16, 32}),
    max_head_group=8,
)
_MUCH = replace(
    _LITTLE,
    kv_dtypes=frozenset({torch.bfloat16, torch.float8_e4m3fn}),
    page_sizes=frozenset(),
    softcap=True,
    sinks=True,
    window=True,
)


@pytest.mark.parametrize(
    ("change", "little", "much"),
    [
        ({}, None, None),
        ({"is_latent": True}, PlainReason.LATENT, PlainReason.LATENT),
        ({"is_causal": False}, PlainReason.NOT_CAUSAL, PlainReason.NOT_CAUSAL),
        ({"has_alibi": True}, PlainReason.ALIBI, PlainReason.ALIBI),
        ({"has_sinks": True}, PlainReason.SINKS, None),
        ({"softcap": 30.0}, PlainReason.SOFTCAP, None),
        ({"window": 4096}, PlainReason.WINDOW, None),
        ({"dtype": torch.float16}, PlainReason.DTYPE, PlainReason.DTYPE),
        ({"kv_dtype": torch.float8_e4m3fn}, PlainReason.KV_DTYPE, None),
        ({"kv_dtype": torch.float8_e5m2}, PlainReason.KV_DTYPE, PlainReason.KV_DTYPE),
        ({"head_size": 80}, PlainReason.HEAD_SIZE, PlainReason.HEAD_SIZE),
        ({"num_query_heads": 12}, PlainReason.HEAD_GROUP, PlainReason.HEAD_GROUP),
        ({"num_query_heads": 4}, PlainReason.HEAD_GROUP, PlainReason.HEAD_GROUP),
        ({"num_query_heads": 72}, PlainReason.HEAD_GROUP, PlainReason.HEAD_GROUP),
        ({"num_query_heads": 64}, None, None),
        ({"page_size": 48}, PlainReason.PAGE_SIZE, None),
    ],
)
def test_why_a_layer_is_plain(
    change: dict[str, Any], little: PlainReason | None, much: PlainReason | None
) -> None:
    layer = replace(_LAYER, **change)
    assert why_plain(layer, _LITTLE) is little
    assert why_plain(layer, _MUCH) is much


def test_every_code_of_an_error_is_explained() -> None:
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("parrot_backend.kernels.gpu")
    found = {errors.CompilerUnavailable.code, errors.AttentionError.code}
    found |= {each.code for each in errors.AttentionError.__subclasses__()}
    assert len(found) >= 5
    assert [code for code in found if f"| `{code}` |" not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("num_shared_pages", "reason"),
    [(0, PlainReason.NOTHING_SHARED), (9, PlainReason.SAVING_TOO_SMALL), (400, None)],
)
def test_why_a_step_is_plain(num_shared_pages: int, reason: PlainReason | None) -> None:
    tables = [[*range(num_shared_pages), 10_000 + i] for i in range(4)]
    case = case_of(tables, [1] * 4, [16 * num_shared_pages + 5] * 4, 16)
    costs = PlanCosts()
    plan = Planner(16, 2, costs).plan(case.block_table, case.query_start, case.seq_lens)
    assert why_no_gain(plan, costs) is reason
    if reason is None:
        # Three of four need not read the prefix; each of four has a partial more; two workers.
        num_pieces = len(np.unique(plan.items[:, 3]))
        added = 4 * (num_pieces - 1) * costs.partial + 2 * costs.item
        assert saving(plan, costs) == pytest.approx(3 * 16 * num_shared_pages - added)
        assert why_no_gain(plan, replace(costs, min_saving=1e9)) is PlainReason.SAVING_TOO_SMALL
