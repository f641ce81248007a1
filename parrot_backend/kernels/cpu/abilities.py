"""What the CPU kernel computes, and what its work costs."""

from __future__ import annotations

import torch

from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.cpu.library import load_library
from parrot_backend.kernels.support import KernelAbilities

#: Pages and heads of any multiple of 16; those of 32 only in vLLM's layout for AMX.
ABILITIES = KernelAbilities(
    dtypes=frozenset({torch.float32, torch.bfloat16, torch.float16}),
    head_sizes=frozenset(range(16, 513, 16)),
    page_sizes=frozenset(range(16, 4097, 16)),
    max_head_group=128,
    softcap=True,
    sinks=True,
    window=True,
)


def beats_plain(dtype: torch.dtype) -> bool:
    """Return whether vLLM's own operator is slower here even where nothing is shared.

    So it was measured for bfloat16 where the processor multiplies it (1.1 to 2.4 times as long in
    decode steps, 1.6 to 1.8 for prompts). For other types and processors ours needs shared pages to
    be faster for certain: prompts take the two about the same time.

    Raises:
        CompilerUnavailable: The kernel is not compiled yet and cannot be.
    """
    return dtype is torch.bfloat16 and load_library().isa.multiplies_bf16


def plan_costs(head_group: int) -> PlanCosts:
    """Return what work costs for a model with so many query heads per KV head.

    Measured on one core of an AMD EPYC of the Zen 5 family with bfloat16: a KV token of one head of
    64 is read from memory in 15 ns, takes 1 ns of arithmetic per query head, and a partial 50 ns.

    Args:
        head_group: Hq / Hkv.
    """
    return PlanCosts(
        kv_token=1.0,
        row=head_group / 15,
        item=16.0,
        partial=3.5 * head_group,
        max_rows=256,
        min_chunk_tokens=128,
        min_saving=0.0,
    )
