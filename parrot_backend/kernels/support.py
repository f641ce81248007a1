"""Tells why plain attention must, or should, be used instead of a shared path.

Everything that sends a layer or a step to plain attention has a name here, so that nothing does so
in silence and metrics can count the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch

from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.work import WorkPlan


class PlainReason(StrEnum):
    """Stable names of the reasons, fit for metrics.

    The first group is about a layer and holds for good, the last two are about a step.
    """

    #: Latent attention: its kernel already has as many rows per KV token as sharing would give.
    LATENT = "latent"
    #: Encoder or cross attention: keys are not the tokens before the query's.
    NOT_CAUSAL = "not_causal"
    ALIBI = "alibi"
    SINKS = "sinks"
    SOFTCAP = "softcap"
    #: A sliding window: most of a long prefix is out of sight.
    WINDOW = "window"
    DTYPE = "dtype"
    KV_DTYPE = "kv_dtype"
    HEAD_SIZE = "head_size"
    #: The number of query heads is no multiple of the KV heads, or the ratio is too large.
    HEAD_GROUP = "head_group"
    PAGE_SIZE = "page_size"
    NOTHING_SHARED = "nothing_shared"
    SAVING_TOO_SMALL = "saving_too_small"


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """What a layer asks of attention.

    Attributes:
        dtype: Of queries and outputs.
        kv_dtype: Of the cache.
        head_size: D.
        num_query_heads: Hq.
        num_kv_heads: Hkv.
        page_size: Tokens of a KV page.
        softcap: Bound of the scores; 0: none.
        window: Positions that a query token sees, its own included; None: all.
        has_sinks: A learnt score per head takes part in the softmax.
        has_alibi: Scores fall with distance.
        is_causal: Decoder self-attention; not encoder or cross attention.
        is_latent: Keys and values are kept as one latent vector (MLA).
    """

    dtype: torch.dtype
    kv_dtype: torch.dtype
    head_size: int
    num_query_heads: int
    num_kv_heads: int
    page_size: int
    softcap: float = 0.0
    window: int | None = None
    has_sinks: bool = False
    has_alibi: bool = False
    is_causal: bool = True
    is_latent: bool = False


@dataclass(frozen=True, slots=True)
class KernelAbilities:
    """What a kernel computes.

    Attributes:
        dtypes: Types of queries and outputs.
        kv_dtypes: Types of the cache; those of the query if empty.
        head_sizes: Values of D.
        page_sizes: Values of the page size; any if empty.
        max_head_group: Largest Hq / Hkv.
        softcap: Whether scores can be bounded.
        sinks: Whether sinks can take part.
        window: Whether a sliding window can be computed. A plan knows none: items wholly out of
            sight are run all the same, so a window shorter than the prefix gains nothing.
    """

    dtypes: frozenset[torch.dtype]
    head_sizes: frozenset[int]
    kv_dtypes: frozenset[torch.dtype] = frozenset()
    page_sizes: frozenset[int] = frozenset()
    max_head_group: int = 64
    softcap: bool = False
    sinks: bool = False
    window: bool = False


def why_plain(layer: LayerAttention, abilities: KernelAbilities) -> PlainReason | None:
    """Return why a layer must use plain attention; None if the kernel computes it.

    Args:
        layer: What the layer asks for.
        abilities: What the kernel can do.
    """
    group, rest = divmod(layer.num_query_heads, max(layer.num_kv_heads, 1))
    reasons = (
        (layer.is_latent, PlainReason.LATENT),
        (not layer.is_causal, PlainReason.NOT_CAUSAL),
        (layer.has_alibi, PlainReason.ALIBI),
        (layer.has_sinks and not abilities.sinks, PlainReason.SINKS),
        (bool(layer.softcap) and not abilities.softcap, PlainReason.SOFTCAP),
        (layer.window is not None and not abilities.window, PlainReason.WINDOW),
        (layer.dtype not in abilities.dtypes, PlainReason.DTYPE),
        (layer.kv_dtype not in (abilities.kv_dtypes or {layer.dtype}), PlainReason.KV_DTYPE),
        (layer.head_size not in abilities.head_sizes, PlainReason.HEAD_SIZE),
        (
            layer.num_kv_heads < 1 or rest != 0 or not 1 <= group <= abilities.max_head_group,
            PlainReason.HEAD_GROUP,
        ),
        (
            bool(abilities.page_sizes) and layer.page_size not in abilities.page_sizes,
            PlainReason.PAGE_SIZE,
        ),
    )
    return next((reason for applies, reason in reasons if applies), None)


def saving(plan: WorkPlan, costs: PlanCosts) -> float:
    """Return what a plan saves against plain attention, in KV tokens read.

    Reading saved, less the partials that sharing adds and an item for each worker: plain attention
    is taken to leave one partial per query token, and to be balanced as well.
    """
    partials = plan.num_slots - len(plan.tokens)
    read = plan.plain_tokens - plan.shared_tokens
    return read * costs.kv_token - partials * costs.partial - plan.num_workers * costs.item


def why_no_gain(plan: WorkPlan, costs: PlanCosts) -> PlainReason | None:
    """Return why a step should use plain attention; None if sharing pays.

    The plan is correct either way; this is about time only.

    Args:
        plan: Of the step, made with the same costs.
        costs: With ``min_saving``: what must be saved to choose sharing.
    """
    if plan.plain_tokens <= plan.shared_tokens:
        return PlainReason.NOTHING_SHARED
    if saving(plan, costs) < costs.min_saving:
        return PlainReason.SAVING_TOO_SMALL
    return None
