"""Shared-prefix attention on NVIDIA GPUs, in Triton.

A step is planned on the CPU (``Planner``), its plan loaded (``PlanBuffers``), and each layer runs
it by two launches (``gpu_attention``). Importing this package imports Triton.
"""

from __future__ import annotations

from parrot_backend.kernels.gpu.abilities import ABILITIES, abilities_of
from parrot_backend.kernels.gpu.launch import ScoreOptions, gpu_attention
from parrot_backend.kernels.gpu.plan_buffers import PlanBuffers, PlanLimits, PlanTooLarge
from parrot_backend.kernels.gpu.variants import Variant, choose_variant, count_workers

__all__ = [
    "ABILITIES",
    "PlanBuffers",
    "PlanLimits",
    "PlanTooLarge",
    "ScoreOptions",
    "Variant",
    "abilities_of",
    "choose_variant",
    "count_workers",
    "gpu_attention",
]
