"""Attention for batches whose requests share prompt prefixes, on a paged KV cache.

Requests that have the same first pages read them once per step, not once each::

    layer = LayerAttention(  # what all layers of the model ask for
        dtype=torch.bfloat16,
        kv_dtype=torch.bfloat16,
        head_size=128,
        num_query_heads=32,
        num_kv_heads=8,
        page_size=16,
    )
    planner = planner_for(layer, query.device)  # once
    plan = planner.plan(table, query_start, seq_lens)  # once per step, from numpy arrays
    output, lse = shared_prefix_attention(  # in each layer, on tensors
        query,
        key_pages,
        value_pages,
        torch.from_numpy(table).to(query.device),
        plan,
        scale=128**-0.5,
    )

A plan is made in three steps, which can be had one by one: :func:`find_prefixes` compares page ids
and finds a tree, :func:`fold_prefixes` drops what does not pay, :func:`plan_work` cuts what is left
into items. A kernel runs the items, and the partial results of each query token are merged by their
log-sum-exp (:func:`merge_partials`). :func:`reference_attention` and :func:`planned_attention` are
the specification in plain PyTorch. :func:`why_plain` and :func:`why_no_gain` tell when other
attention must, or should, be used.

The package needs torch and numpy, on GPUs Triton, and nothing else of Parrot. Plans are numpy and
know nothing of heads, types or devices: one plan serves all layers of a step that are alike.
"""

from __future__ import annotations

from parrot_backend.kernels.api import abilities_of, planner_for, shared_prefix_attention
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
    "abilities_of",
    "find_prefixes",
    "fold_prefixes",
    "merge_partials",
    "plan_work",
    "planned_attention",
    "planner_for",
    "reference_attention",
    "saving",
    "shared_prefix_attention",
    "why_no_gain",
    "why_plain",
]
