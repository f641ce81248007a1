"""What the launch hands to Triton, on a Hopper chip that is not there: specialised and compiled.

Nothing runs. It covers what the interpreter and the compile gate leave out: descriptors, strides
and constants as the just-in-time compiler sees them, and a hook such as vLLM sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed on this platform")

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from parrot_backend.kernels import PlanCosts, Planner
from parrot_backend.kernels.gpu import (
    PlanBuffers,
    PlanLimits,
    ScoreOptions,
    choose_variant,
    gpu_attention,
    launch,
)


class Hopper:
    """A driver that knows its target and cannot launch."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Collect the kernels that launches compile, in a fresh cache and with a hook."""
    found: list[tuple[str, Any]] = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Hopper(), raising=False)
    monkeypatch.setattr(type(driver), "active", property(lambda self: Hopper()), raising=False)
    monkeypatch.setattr(knobs.runtime, "jit_post_compile_hook", lambda **told: None)
    for name in ("attention_kernel", "merge_kernel"):
        kernel = getattr(launch, name)

        def run(*args, _kernel=kernel, _run=kernel.run, _name=name, **options):
            found.append((_name, _run(*args, **(options | {"warmup": True}))))

        monkeypatch.setattr(kernel, "run", run)
    return found


@pytest.mark.parametrize(
    ("page_size", "options"),
    [(64, ScoreOptions()), (16, ScoreOptions(softcap=30.0, window=100, sinks=torch.zeros(8)))],
)
def test_launches_compile(compiled, page_size: int, options: ScoreOptions) -> None:
    variant = choose_variant(
        num_query_heads=8, num_kv_heads=2, head_dim=128, page_size=page_size, capability=(9, 0)
    )
    table = np.arange(4, dtype=np.int32).reshape(2, 2)
    table[1, 0] = 0
    costs = PlanCosts(item=0, partial=0, max_rows=variant.max_rows)
    starts = np.arange(3, dtype=np.int32)
    plan = Planner(page_size, 3, costs).plan(table, starts, np.full(2, page_size + 5, np.int32))
    limits = PlanLimits.for_batches(4, 4, num_workers=3, max_rows=variant.max_rows)
    buffers = PlanBuffers(limits, num_query_heads=8, head_dim=128, device=torch.device("cpu"))
    buffers.load(plan)
    cache = torch.zeros(4, 2, page_size, 256, dtype=torch.bfloat16)
    query = torch.zeros(2, 8, 128, dtype=torch.bfloat16)
    gpu_attention(
        *(query, cache[..., :128], cache[..., 128:], torch.from_numpy(table), buffers, variant),
        scale=0.1,
        options=options,
        lse=torch.zeros(2, 8),
    )
    (first, attention), (second, merge) = compiled
    assert (first, second) == ("attention_kernel", "merge_kernel")
    loads = "cp.async.bulk.tensor" if variant.has_descriptors else "cp.async.cg"
    assert loads in attention.asm["ptx"]
    assert "wgmma.mma_async" in attention.asm["ptx"]
    assert "cubin" in merge.asm
