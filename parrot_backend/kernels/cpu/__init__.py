"""Shared-prefix attention on the CPU: a C++ kernel over vLLM's CPU cache, compiled on first use.

Nothing is compiled at import. Where no compiler is, :func:`why_unavailable` says so, and plain
attention must do.
"""

from __future__ import annotations

from parrot_backend.kernels.cpu.abilities import (
    ABILITIES,
    beats_plain,
    plan_costs,
    why_unreadable,
)
from parrot_backend.kernels.cpu.attention import CpuStep, cpu_attention
from parrot_backend.kernels.cpu.isa import available_sets, instruction_set, wins_inside_vllm
from parrot_backend.kernels.cpu.layout import LAYOUT_OF_VLLM_ISA, KvLayout, pack_pages
from parrot_backend.kernels.cpu.library import (
    KernelLibrary,
    is_available,
    load_library,
    why_unavailable,
)

__all__ = [
    "ABILITIES",
    "LAYOUT_OF_VLLM_ISA",
    "CpuStep",
    "KernelLibrary",
    "KvLayout",
    "available_sets",
    "beats_plain",
    "cpu_attention",
    "instruction_set",
    "is_available",
    "load_library",
    "pack_pages",
    "plan_costs",
    "why_unavailable",
    "why_unreadable",
    "wins_inside_vllm",
]
