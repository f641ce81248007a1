"""Attention for batches whose requests share prompt prefixes, on a paged KV cache.

Requests that have the same first pages read them once per step, not once each. First what is shared
is found (:func:`find_prefixes`, :func:`fold_prefixes`), then the step is planned
(:func:`plan_work`; :class:`Planner` does all of it, step after step), then a kernel runs the plan,
and the partial results of each query token are merged (:func:`merge_partials`).

The package needs torch and numpy and nothing else of Parrot. Plans are numpy and know nothing of
heads, types or devices: one plan serves all layers of a step.
"""

from __future__ import annotations

from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.errors import (
    AttentionError,
    CompilerUnavailable,
    TableTooNarrow,
    TreeMismatch,
    UnsupportedAttention,
)
from parrot_backend.kernels.folding import fold_prefixes
from parrot_backend.kernels.merge import merge_partials
from parrot_backend.kernels.planner import Planner
from parrot_backend.kernels.prefixes import PrefixTree, find_prefixes
from parrot_backend.kernels.reference import planned_attention, reference_attention
from parrot_backend.kernels.support import (
    KernelAbilities,
    LayerAttention,
    PlainReason,
    saving,
    why_no_gain,
    why_plain,
)
from parrot_backend.kernels.work import WorkPlan, plan_work

__all__ = [
    "AttentionError",
    "CompilerUnavailable",
    "KernelAbilities",
    "LayerAttention",
    "PlainReason",
    "PlanCosts",
    "Planner",
    "PrefixTree",
    "TableTooNarrow",
    "TreeMismatch",
    "UnsupportedAttention",
    "WorkPlan",
    "find_prefixes",
    "fold_prefixes",
    "merge_partials",
    "plan_work",
    "planned_attention",
    "reference_attention",
    "saving",
    "why_no_gain",
    "why_plain",
]
