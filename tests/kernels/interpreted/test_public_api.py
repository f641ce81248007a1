"""The public functions on the GPU's side, as far as they go without a GPU."""

from __future__ import annotations

import pytest
import torch

from parrot_backend.kernels import LayerAttention
from parrot_backend.kernels.api import gpu_planner, run_on_gpu
from parrot_backend.kernels.gpu import ScoreOptions
from tests.kernels.batches import case_of
from tests.kernels.dense import HEAD_SIZE, HEADS, KV_HEADS, data_of, dense

_AMPERE = (8, 0)


@pytest.mark.parametrize("softcap", [0.0, 2.5])
def test_a_batch_is_planned_and_run(softcap: float) -> None:
    case = case_of(
        [[1, 2, 3], [1, 2, 4], [1, 2, 5], [7, 8], [], [1, 6]],
        [1, 4, 1, 2, 1, 1],
        [40, 47, 33, 20, 0, 30],
        16,
    )
    layer = LayerAttention(torch.float16, torch.float16, HEAD_SIZE, HEADS, KV_HEADS, 16)
    planner = gpu_planner(layer, _AMPERE, 2)
    plan = planner.plan(case.block_table, case.query_start, case.seq_lens)
    data = data_of(case, 0, dtype=torch.float16)
    options = ScoreOptions(softcap=softcap)
    output, lse = run_on_gpu(*data, plan, 0.35, options, _AMPERE)
    wanted, wanted_lse = dense(case, data, 0.35, softcap=softcap)
    torch.testing.assert_close(output.double(), wanted, rtol=0, atol=2e-3)
    torch.testing.assert_close(lse.double(), wanted_lse, rtol=0, atol=1e-3)
