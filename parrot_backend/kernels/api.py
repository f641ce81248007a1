"""Attention over shared prefixes for any caller: choose a planner, plan a step, run it.

The kernels themselves keep what a server needs to be fast: ``parrot_backend.kernels.cpu`` reads
vLLM's cache in place, ``parrot_backend.kernels.gpu`` has buffers that CUDA graphs can capture. Here
all of that is made for each call, from tensors in plain order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.errors import AttentionError, UnsupportedAttention
from parrot_backend.kernels.planner import Planner
from parrot_backend.kernels.prefixes import Int32Array
from parrot_backend.kernels.support import KernelAbilities, LayerAttention, why_plain
from parrot_backend.kernels.work import KV_END, KV_START, TABLE_ROW, WorkPlan, expand

if TYPE_CHECKING:
    from parrot_backend.kernels import gpu


def abilities_of(device: torch.device) -> KernelAbilities:
    """Return what the kernel for a device computes.

    Raises:
        UnsupportedAttention: There is none for such devices.
    """
    if device.type == "cpu":
        from parrot_backend.kernels import cpu

        return cpu.ABILITIES
    if device.type == "cuda":
        from parrot_backend.kernels import gpu

        return gpu.abilities_of(torch.cuda.get_device_capability(device))
    raise UnsupportedAttention(f"there is no kernel for devices of type {device.type}")


def planner_for(layer: LayerAttention, device: torch.device) -> Planner:
    """Return a planner with the costs, limits and workers of the kernel for a device.

    Args:
        layer: What the model's layers ask for; one plan serves all that are alike.
        device: Where queries and cache are.

    Raises:
        UnsupportedAttention: The kernel does not compute such layers; the message is the reason.
    """
    _check_layer(layer, abilities_of(device))
    if device.type == "cpu":
        from parrot_backend.kernels import cpu

        costs = cpu.plan_costs(layer.num_query_heads // layer.num_kv_heads)
        return Planner(layer.page_size, torch.get_num_threads(), costs)
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return gpu_planner(layer, torch.cuda.get_device_capability(device), multiprocessors)


def gpu_planner(
    layer: LayerAttention, capability: tuple[int, int], num_multiprocessors: int
) -> Planner:
    """Return a planner for a GPU that need not be there.

    Args:
        layer: What the layers ask for.
        capability: Compute capability of the chip.
        num_multiprocessors: How many it has.
    """
    from parrot_backend.kernels import gpu

    variant = gpu.choose_variant(
        num_query_heads=layer.num_query_heads,
        num_kv_heads=layer.num_kv_heads,
        head_dim=layer.head_size,
        page_size=layer.page_size,
        capability=capability,
    )
    num_workers = gpu.count_workers(variant, num_multiprocessors)
    return Planner(layer.page_size, num_workers, PlanCosts(max_rows=variant.max_rows))


def shared_prefix_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    plan: WorkPlan,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute causal attention of a batch by a plan, on the device of the query.

    On the CPU the pages that the plan reads are copied into the kernel's order first; on a GPU the
    plan is copied there and room for partials is taken. Who calls this for many layers should use
    the packages ``cpu`` and ``gpu`` instead; quantised caches need them too, for their scales.

    Args:
        query: [T, Hq, D] float32 (CPU only), bfloat16 or float16.
        key_pages: [num_pages, Hkv, page, D] of the same type; Hq is a multiple of Hkv.
        value_pages: Of the same shape and type.
        block_table: [B, P] int32, page ids of each request, on the same device; GPUs trust them.
        plan: Of this batch, from :func:`planner_for` for the same kind of layer and device.
        scale: Factor of the scores, above 0.
        softcap: Bound of the scores, ``cap * tanh(score / cap)``; 0: none.
        window: How many positions a query token sees, its own included; None: all.
        sinks: [Hq] A score per head that takes part in the softmax and has no value.

    Returns:
        Output [T, Hq, D] of the query's type, and log-sum-exp [T, Hq] in float32 (natural
        logarithm, sinks included). Padding has 0 and -inf (with sinks, the sink).

    Raises:
        AttentionError: Shapes, types or devices do not fit together, or the plan does not.
        UnsupportedAttention: The kernel does not compute this; the message is the reason.
        CompilerUnavailable: The CPU kernel cannot be built here.
    """
    _check_tensors(query, key_pages, value_pages, block_table, plan)
    layer = LayerAttention(
        dtype=query.dtype,
        kv_dtype=key_pages.dtype,
        head_size=query.shape[2],
        num_query_heads=query.shape[1],
        num_kv_heads=key_pages.shape[1],
        page_size=key_pages.shape[2],
        softcap=softcap,
        window=window,
        has_sinks=sinks is not None,
    )
    # Scales have no place here, so the cache must be of the query's type.
    _check_layer(layer, replace(abilities_of(query.device), kv_dtypes=frozenset()))
    tensors = (query, key_pages, value_pages, block_table)
    if query.device.type == "cpu":
        return _run_on_cpu(*tensors, plan, scale, layer, sinks)
    from parrot_backend.kernels import gpu

    options = gpu.ScoreOptions(softcap=softcap, window=window, sinks=sinks)
    capability = torch.cuda.get_device_capability(query.device)
    return run_on_gpu(*tensors, plan, scale, options, capability)


def _run_on_cpu(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    plan: WorkPlan,
    scale: float,
    layer: LayerAttention,
    sinks: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a plan by the CPU kernel, over a cache of the pages that it reads."""
    from parrot_backend.kernels import cpu

    table, ids = _pages_read(block_table.numpy(), plan, len(key_pages))
    return cpu.cpu_attention(
        query,
        cpu.pack_pages(key_pages[ids], value_pages[ids]),
        table,
        plan,
        scale=scale,
        softcap=layer.softcap,
        window=layer.window,
        sinks=sinks,
    )


def run_on_gpu(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    plan: WorkPlan,
    scale: float,
    options: gpu.ScoreOptions,
    capability: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a plan by the GPU kernel, with buffers just large enough for it."""
    from parrot_backend.kernels import gpu

    num_tokens, heads, dim = query.shape
    variant = gpu.choose_variant(
        num_query_heads=heads,
        num_kv_heads=key_pages.shape[1],
        head_dim=dim,
        page_size=key_pages.shape[2],
        capability=capability,
    )
    limits = gpu.PlanLimits(
        num_workers=plan.num_workers,
        max_items=plan.num_items,
        max_tokens=num_tokens,
        max_slots=plan.num_slots,
        max_rows=variant.max_rows,
    )
    buffers = gpu.PlanBuffers(limits, num_query_heads=heads, head_dim=dim, device=query.device)
    buffers.load(plan, num_tokens)
    lse = torch.empty(num_tokens, heads, dtype=torch.float32, device=query.device)
    output = gpu.gpu_attention(
        query,
        key_pages,
        value_pages,
        block_table,
        buffers,
        variant,
        scale=scale,
        options=options,
        lse=lse,
    )
    return output, lse


def _pages_read(
    block_table: Int32Array, plan: WorkPlan, num_pages: int
) -> tuple[Int32Array, torch.Tensor]:
    """Return a table of places in the second result: ids of the pages that a plan reads.

    Raises:
        AttentionError: A cache of ``num_pages`` pages has less than the plan reads.
    """
    first = plan.items[:, KV_START].astype(np.int64) // plan.page_size
    counts = -(-plan.items[:, KV_END].astype(np.int64) // plan.page_size) - first
    rows = np.repeat(plan.items[:, TABLE_ROW].astype(np.int64), counts)
    columns = expand(first, counts)
    ids, places = np.unique(block_table[rows, columns], return_inverse=True)
    if len(ids) and not 0 <= ids[0] <= ids[-1] < num_pages:
        raise AttentionError(
            f"block_table has pages {ids[0]} to {ids[-1]} where the plan reads, "
            f"the cache 0 to {num_pages - 1}"
        )
    table = np.zeros(block_table.shape, np.int32)
    table[rows, columns] = places
    return table, torch.from_numpy(ids.astype(np.int64))


def _check_layer(layer: LayerAttention, abilities: KernelAbilities) -> None:
    """Refuse what the kernel does not compute.

    Raises:
        UnsupportedAttention: The message is the reason.
    """
    reason = why_plain(layer, abilities)
    if reason is not None:
        raise UnsupportedAttention(f"no shared path computes this layer: {reason}")


def _check_tensors(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    plan: WorkPlan,
) -> None:
    """Check what the kernels cannot: what a layer is read from, and what the plan reads.

    Raises:
        AttentionError: Dimensions, types, devices or the plan's pages do not fit.
    """
    tensors = (query, key_pages, value_pages, block_table)
    if not all(isinstance(each, torch.Tensor) for each in tensors):
        raise AttentionError("query, pages and block_table must be tensors")
    if query.ndim != 3 or key_pages.ndim != 4 or key_pages.shape != value_pages.shape:
        raise AttentionError(
            "query must be [T, Hq, D], key_pages and value_pages [num_pages, Hkv, page, D], "
            f"not {[*query.shape]}, {[*key_pages.shape]}, {[*value_pages.shape]}"
        )
    if key_pages.shape[3] != query.shape[2] or key_pages.dtype != value_pages.dtype:
        raise AttentionError("keys and values must have the query's head size, and one type")
    if block_table.ndim != 2 or block_table.dtype != torch.int32:
        raise AttentionError(f"block_table must be [B, P] int32, not {block_table.dtype}")
    if plan.page_size != key_pages.shape[2]:
        raise AttentionError(
            f"the plan is for pages of {plan.page_size} tokens, not of {key_pages.shape[2]}"
        )
    rows = int(plan.items[:, TABLE_ROW].max(initial=-1)) + 1
    columns = -(-int(plan.items[:, KV_END].max(initial=0)) // plan.page_size)
    if rows > block_table.shape[0] or columns > block_table.shape[1]:
        raise AttentionError(
            f"the plan reads [{rows}, {columns}] of a block table of {[*block_table.shape]}"
        )
    devices = {each.device for each in tensors}
    if len(devices) > 1:
        raise AttentionError(f"tensors are on several devices: {sorted(map(str, devices))}")
