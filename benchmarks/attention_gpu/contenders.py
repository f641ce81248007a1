"""What is compared: our kernel with and without sharing, and others where they can be imported.

Each function returns a call that computes a problem's output. It raises ``NotHere`` with the reason
if it cannot.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.attention_gpu.problem import Problem
from benchmarks.attention_gpu.shapes import level_pages
from parrot_backend.kernels import PlanCosts, Planner
from parrot_backend.kernels.gpu import (
    PlanBuffers,
    PlanLimits,
    choose_variant,
    count_workers,
    gpu_attention,
)

Call = Callable[[], torch.Tensor]
WORKSPACE_BYTES = 128 * 2**20
#: As vLLM's Triton backend sets its kernel up for decode steps.
VLLM_SEGMENTS = 16
VLLM_SPLIT_BELOW = 128
#: The densified copy of SDPA is not to take more.
MOST_DENSE_BYTES = 24 * 2**30


class NotHere(Exception):  # noqa: N818 - reads as what is wrong
    """A contender cannot run here; the message says why."""


def _module(name: str) -> Any:
    """Import a contender's module.

    Raises:
        NotHere: It cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as reason:  # packages that build themselves on import raise anything
        raise NotHere(f"{name}: {type(reason).__name__}: {reason}") from reason


def shared(problem: Problem, *, wide_rows: int = 64) -> Call:
    """Ours, with what is shared found in the block table."""
    if wide_rows > 64 and problem.shape.head_dim > 128:
        raise NotHere("128 rows of more than 128 elements do not fit into registers")
    return _ours(problem, wide_rows, may_share=True)


def unshared(problem: Problem) -> Call:
    """Ours, reading every request by itself."""
    return _ours(problem, 64, may_share=False)


def _ours(problem: Problem, wide_rows: int, *, may_share: bool) -> Call:
    """Plan once, as for all layers of a step."""
    shape = problem.shape
    is_cuda = problem.query.is_cuda
    variant = choose_variant(
        num_query_heads=shape.num_query_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        page_size=shape.page_size,
        capability=torch.cuda.get_device_capability() if is_cuda else (8, 0),
        wide_rows=wide_rows,
    )
    places = torch.cuda.get_device_properties(0).multi_processor_count if is_cuda else 2
    workers = count_workers(variant, places)
    planner = Planner(shape.page_size, workers, PlanCosts(max_rows=variant.max_rows))
    hint = None if may_share else np.zeros(shape.tree.batch, np.bool_)
    plan = planner.plan(problem.table, problem.query_start, problem.seq_lens, hint=hint)
    limits = PlanLimits(workers, plan.num_items, plan.num_tokens, plan.num_slots, variant.max_rows)
    buffers = PlanBuffers(
        limits,
        num_query_heads=shape.num_query_heads,
        head_dim=shape.head_dim,
        device=problem.query.device,
    )
    buffers.load(plan)
    output = torch.empty_like(problem.query)
    pages = (problem.keys, problem.values, problem.device_table)
    return lambda: gpu_attention(
        problem.query, *pages, buffers, variant, scale=problem.scale, output=output
    )


def sdpa(problem: Problem) -> Call:
    """PyTorch's scaled dot product over keys and values copied for each request (not timed)."""
    shape = problem.shape
    token_bytes = 4 * shape.num_kv_heads * shape.head_dim
    if shape.tree.batch * shape.tree.seq_len * token_bytes > MOST_DENSE_BYTES:
        raise NotHere("keys and values of each request do not fit as copies")
    table = problem.device_table.long()
    keys, values = (
        part[table].transpose(1, 2).flatten(2, 3).contiguous()
        for part in (problem.keys, problem.values)
    )
    query = problem.query.unsqueeze(2)
    attend = torch.nn.functional.scaled_dot_product_attention
    grouped = shape.num_query_heads != shape.num_kv_heads
    return lambda: attend(query, keys, values, scale=problem.scale, enable_gqa=grouped).squeeze(2)


def vllm_unified(problem: Problem) -> Call:
    """The paged kernel of vLLM's Triton backend; small batches are split over positions."""
    if not problem.query.is_cuda:
        raise NotHere("needs a GPU")
    unified = _module("vllm.v1.attention.ops.triton_unified_attention").unified_attention
    device = problem.query.device
    lens = torch.from_numpy(problem.seq_lens).to(device)
    starts = torch.from_numpy(problem.query_start).to(device)
    output = torch.empty_like(problem.query)
    shape = problem.shape
    most_split = VLLM_SPLIT_BELOW // shape.num_kv_heads
    segments = (most_split, shape.num_query_heads, VLLM_SEGMENTS)
    sums = [torch.empty(segments, dtype=torch.float32, device=device) for _ in range(2)]
    parts = torch.empty(*segments, shape.head_dim, dtype=torch.float32, device=device)

    def call() -> torch.Tensor:
        unified(
            q=problem.query,
            k=problem.keys.transpose(1, 2),
            v=problem.values.transpose(1, 2),
            out=output,
            cu_seqlens_q=starts,
            max_seqlen_q=1,
            seqused_k=lens,
            max_seqlen_k=shape.tree.seq_len,
            softmax_scale=problem.scale,
            causal=True,
            window_size=(-1, -1),
            block_table=problem.device_table,
            softcap=0.0,
            q_descale=None,
            k_descale=None,
            v_descale=None,
            seq_threshold_3D=most_split,
            num_par_softmax_segments=VLLM_SEGMENTS,
            softmax_segm_output=parts,
            softmax_segm_max=sums[0],
            softmax_segm_expsum=sums[1],
        )
        return output

    return call


def _flashinfer(problem: Problem) -> tuple[Any, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return FlashInfer, a workspace, and the cache as it wants it (a copy, not timed)."""
    if not problem.query.is_cuda:
        raise NotHere("needs a GPU")
    module = _module("flashinfer")
    device = problem.query.device
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
    return module, workspace, (problem.keys.contiguous(), problem.values.contiguous())


def _on(device: torch.device, values: Any) -> torch.Tensor:
    """Return int32 on a device."""
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.int32, device=device)


def _heads(problem: Problem) -> tuple[int, int, int, int]:
    shape = problem.shape
    return shape.num_query_heads, shape.num_kv_heads, shape.head_dim, shape.page_size


def flashinfer_decode(problem: Problem) -> Call:
    """FlashInfer's paged decode on tensor cores."""
    module, workspace, cache = _flashinfer(problem)
    device, batch = problem.query.device, problem.shape.tree.batch
    pages = problem.table.shape[1]
    wrapper = module.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND", use_tensor_cores=True)
    wrapper.plan(
        _on(device, np.arange(batch + 1) * pages),
        _on(device, problem.table.reshape(-1)),
        _on(device, np.full(batch, problem.shape.page_size)),
        *_heads(problem),
        q_data_type=problem.query.dtype,
        kv_data_type=problem.query.dtype,
        sm_scale=problem.scale,
    )
    return lambda: wrapper.run(problem.query, cache)


def flashinfer_cascade(problem: Problem) -> Call:
    """FlashInfer's cascade: a launch and a merge for each level of the tree."""
    module, workspace, cache = _flashinfer(problem)
    device, tree = problem.query.device, problem.shape.tree
    levels = level_pages(tree, problem.shape.page_size)
    if len(levels) < 2:
        raise NotHere("nothing is shared")
    wrapper = module.MultiLevelCascadeAttentionWrapper(len(levels), workspace, "HND")
    wrapper.plan(
        [_on(device, np.arange(len(x) + 1) * (tree.batch // len(x))) for x in levels],
        [_on(device, np.arange(len(level) + 1) * level.shape[1]) for level in levels],
        [_on(device, level.reshape(-1)) for level in levels],
        [_on(device, np.full(len(level), problem.shape.page_size)) for level in levels],
        *_heads(problem),
        q_data_type=problem.query.dtype,
        sm_scale=problem.scale,
    )
    return lambda: wrapper.run(problem.query, cache)


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """A name, and what prepares its call."""

    name: str
    prepare: Callable[[Problem], Call]
    is_ours: bool = False


CONTENDERS = (
    Contender("shared", shared, is_ours=True),
    Contender("shared, 128 rows", lambda problem: shared(problem, wide_rows=128), is_ours=True),
    Contender("unshared", unshared, is_ours=True),
    Contender("flashinfer decode", flashinfer_decode),
    Contender("flashinfer cascade", flashinfer_cascade),
    Contender("vllm unified", vllm_unified),
    Contender("sdpa", sdpa),
)
