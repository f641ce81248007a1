"""Runs a plan on a GPU: the attention kernel, then the merge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.gpu.attention_kernel import attention_kernel
from parrot_backend.kernels.gpu.merge_kernel import merge_kernel
from parrot_backend.kernels.gpu.plan_buffers import INT32_MAX, PlanBuffers
from parrot_backend.kernels.gpu.variants import Variant, constants_of


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What a layer does to its scores besides scaling them.

    Attributes:
        softcap: Bound of the scores, ``cap * tanh(score / cap)``; 0: none.
        window: Positions that a query token sees, its own included; None: all.
        sinks: [Hq] A score per head that takes part in the softmax and has no value.
        key_scale: [1] float32, what quantised keys are to be multiplied by.
        value_scale: [1] float32, the same of values; both or neither.
    """

    softcap: float = 0.0
    window: int | None = None
    sinks: torch.Tensor | None = None
    key_scale: torch.Tensor | None = None
    value_scale: torch.Tensor | None = None


def gpu_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    buffers: PlanBuffers,
    variant: Variant,
    *,
    scale: float,
    options: ScoreOptions | None = None,
    output: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute a step's attention by the plan in ``buffers``, on the current stream.

    Nothing here waits for the device or depends on the plan, so it can be captured in a CUDA graph.

    Args:
        query: [T, Hq, D], elements of a head adjacent. T is ``buffers.num_tokens``.
        key_pages: [num_pages, Hkv, page, D], any strides but for adjacent elements of a head.
        value_pages: Of the same shape, strides of its own.
        block_table: [B, P] int32, elements of a row adjacent.
        buffers: With the step's plan loaded.
        variant: From ``choose_variant``.
        scale: Factor of the scores, above 0.
        options: What else happens to scores.
        output: [T, Hq, D] Where to write; of the query's dtype.
        lse: [T, Hq] float32: if given, the natural log-sum-exp is written there, sinks included.

    Returns:
        ``output``. Padding has 0 (and a log-sum-exp of -inf, or the sink).

    Raises:
        AttentionError: Shapes, strides or dtypes do not fit.
    """
    options = options or ScoreOptions()
    if output is None:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
    variant = complete(variant, query, options, has_lse=lse is not None)
    check(query, key_pages, value_pages, block_table, buffers, variant, output, scale, options)
    if lse is not None and (
        lse.shape != query.shape[:2] or lse.dtype != torch.float32 or not lse.is_contiguous()
    ):
        raise AttentionError(f"lse must be {[*query.shape[:2]]} float32, contiguous")
    if len(query):
        pages = (key_pages, value_pages, block_table)
        _launch(query, pages, buffers, variant, scale, options, output, lse)
    return output


def _launch(
    query: torch.Tensor,
    pages: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    buffers: PlanBuffers,
    variant: Variant,
    scale: float,
    options: ScoreOptions,
    output: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    """Launch both kernels. The compiler drops what a variant does not use, whatever it is given."""
    keys, values, block_table = pages
    sources = [box(part, variant) if variant.has_descriptors else part for part in (keys, values)]
    sinks, key_scale, value_scale, target = (
        buffers.partial_lse if part is None else part
        for part in (options.sinks, options.key_scale, options.value_scale, lse)
    )
    partials = (buffers.partial_output, buffers.partial_lse)
    constants = constants_of(variant)
    attention_kernel[(buffers.limits.num_workers * variant.num_kv_heads,)](
        *(query, *sources, block_table, buffers.plan, output, target, *partials),
        *(sinks, key_scale, value_scale, scale, options.softcap, options.window or 0),
        *(*query.stride()[:2], *keys.stride()[:3], *values.stride()[:3]),
        *(block_table.stride(0), *output.stride()[:2], constants),
        num_warps=variant.num_warps,
        num_stages=variant.num_stages,
        enable_fp_fusion=True,
    )
    merge_kernel[(len(query), variant.num_query_heads)](
        *(buffers.plan, output, target, *partials, sinks, *output.stride()[:2], constants),
        num_warps=1,
        enable_fp_fusion=True,
    )


def complete(
    variant: Variant, query: torch.Tensor, options: ScoreOptions, *, has_lse: bool
) -> Variant:
    """Return the variant with the features of a layer."""
    return replace(
        variant,
        has_softcap=bool(options.softcap),
        has_window=options.window is not None,
        has_sinks=options.sinks is not None,
        has_scales=options.key_scale is not None,
        has_lse=has_lse,
        # The interpreter multiplies the bits of bfloat16 as if they were integers.
        upcasts=bool(knobs.runtime.interpret) and query.dtype == torch.bfloat16,
    )


def box(pages: torch.Tensor, variant: Variant) -> Any:
    """Return the descriptor of keys or values: boxes of one tile of one head in one page."""
    shape = [1, 1, variant.tile_tokens, variant.padded_dim]
    return TensorDescriptor(pages, list(pages.shape), list(pages.stride()), shape)


def check(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    buffers: PlanBuffers,
    variant: Variant,
    output: torch.Tensor,
    scale: float,
    options: ScoreOptions,
) -> None:
    """Check what the kernels take for granted.

    Raises:
        AttentionError: Something does not fit; the message names it.
    """
    heads = (variant.num_query_heads, variant.head_dim)
    pages = (variant.num_kv_heads, variant.page_size, variant.head_dim)
    sinks = options.sinks
    wide = [t for t in (query, key_pages, value_pages, block_table, output) if t.stride(-1) != 1]
    problems = (
        (query.shape[1:] != heads, f"query must be [T, {heads[0]}, {heads[1]}]"),
        (output.shape != query.shape, "output must have the shape of query"),
        (key_pages.shape[1:] != pages, f"key_pages must be [num_pages, {pages}]"),
        (value_pages.shape != key_pages.shape, "value_pages must have the shape of key_pages"),
        (bool(wide), "elements of heads and rows of the block table must be adjacent"),
        (block_table.dtype != torch.int32, "block_table must be int32"),
        (len(query) != buffers.num_tokens, f"the loaded plan has {buffers.num_tokens} tokens"),
        (buffers.limits.max_rows > variant.max_rows, "the plan's tiles exceed the variant's"),
        (max(query.numel(), output.numel()) > INT32_MAX, "query needs 64-bit offsets"),
        (not scale > 0, f"scale must be above 0, not {scale}"),
        (not options.softcap >= 0, f"softcap must be at least 0, not {options.softcap}"),
        (options.window is not None and options.window < 1, "window must be at least 1"),
        (
            sinks is not None and (sinks.shape != heads[:1] or not sinks.is_contiguous()),
            f"sinks must be [{heads[0]}], adjacent",
        ),
        (
            (options.key_scale is None) != (options.value_scale is None),
            "give both key_scale and value_scale, or neither",
        ),
    )
    for is_wrong, message in problems:
        if is_wrong:
            raise AttentionError(message)
