"""Sharing must not cost accuracy: errors beside those of the same kernel without sharing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from parrot_backend.kernels import PlanCosts, Planner
from parrot_backend.kernels.gpu import Variant
from tests.kernels.interpreted.cases import Batch, Case, Member, expected, lay_out, run

#: How much larger errors may be than without sharing.
MOST = 1.5
MEMBERS = tuple(Member(("a", "b") if i % 2 else ("a",), 5 + 9 * i) for i in range(6))


def unshared(case: Case, batch: Batch, variant: Variant) -> Batch:
    """Return the same batch with a plan of one item for each request."""
    planner = Planner(case.page_size, 1, PlanCosts(max_rows=variant.max_rows))
    arrays = (batch.block_table, batch.query_start, batch.seq_lens)
    nobody = np.zeros(len(case.members), np.bool_)
    return replace(batch, plan=planner.plan(*(part.numpy() for part in arrays), hint=nobody))


def error(case: Case, batch: Batch, variant: Variant) -> torch.Tensor:
    """Return the difference from float64 of each element."""
    output, _ = run(case, batch, variant)
    want, _ = expected(batch)
    return (output[: batch.plan.num_tokens].double() - want).flatten()


@pytest.mark.parametrize(
    ("dtype", "magnitude", "has_descriptors"),
    [
        (torch.float16, 1.0, True),
        (torch.float16, 3.0, False),
        (torch.float32, 1.0, False),
        (torch.float32, 3.0, True),
    ],
)
def test_errors_are_those_of_plain_attention(
    dtype: torch.dtype, magnitude: float, has_descriptors: bool
) -> None:
    shared, plain = [], []
    # Several draws: the largest error of one is a single element's bad luck.
    for seed in range(3):
        case = Case(
            MEMBERS, {"a": 6, "b": 4}, dtype=dtype, magnitude=magnitude, num_workers=5, seed=seed
        )
        variant = Variant(
            num_kv_heads=case.num_kv_heads,
            group_size=case.group_size,
            head_dim=case.head_dim,
            page_size=case.page_size,
            tile_tokens=16,
            has_descriptors=has_descriptors,
        )
        batch = lay_out(case, variant)
        alone = unshared(case, batch, variant)
        assert alone.plan.num_items == len(MEMBERS)
        assert batch.plan.shared_tokens < alone.plan.shared_tokens
        shared.append(error(case, batch, variant))
        plain.append(error(replace(case, num_workers=1), alone, variant))
    ours, usual = torch.cat(shared), torch.cat(plain)
    assert ours.abs().max() <= MOST * usual.abs().max()
    assert ours.square().mean().sqrt() <= MOST * usual.square().mean().sqrt()
