"""What the CPU kernel computes, and what its work costs."""

from __future__ import annotations

import torch

from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.cpu.layout import KvLayout
from parrot_backend.kernels.cpu.library import load_library, why_unavailable
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


def beats_plain(dtype: torch.dtype, layout: KvLayout) -> bool:
    """Return whether vLLM's own operator is slower here even where nothing is shared.

    So it was measured for bfloat16 where the processor multiplies it (1.4 to 2.7 times as long in
    decode steps that share nothing, 1.2 to 1.8 for prompts). For other types and processors ours
    needs shared pages to be faster for certain: prompts take the two about the same time. Where the
    cache is laid out for AMX, vLLM multiplies by matrix units, and nothing was measured.

    Args:
        dtype: Of the model.
        layout: Of vLLM's cache.

    Raises:
        CompilerUnavailable: The kernel is not compiled yet and cannot be.
    """
    if dtype is not torch.bfloat16 or layout is KvLayout.PAIRS:
        return False
    return load_library().isa.multiplies_bf16


def why_unreadable(layout: KvLayout) -> str | None:
    """Return why the kernel cannot read a layout here, or cannot run at all; None if it can.

    Compiles it on the first call on a machine.
    """
    reason = why_unavailable()
    if reason is None and layout is KvLayout.PAIRS and not load_library().isa.multiplies_bf16:
        return f"{load_library().isa.name} cannot read layout {layout}"
    return reason


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
