"""Batches over a paged cache, small enough for Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from parrot_backend.kernels import PlanCosts, Planner, WorkPlan, reference_attention
from parrot_backend.kernels.gpu import (
    PlanBuffers,
    PlanLimits,
    ScoreOptions,
    Variant,
    gpu_attention,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A request: which groups of pages it begins with, and what it has of its own."""

    groups: tuple[str, ...]
    own_tokens: int
    query_len: int = 1


@dataclass(frozen=True, slots=True)
class Case:
    """A batch and a model.

    Attributes:
        pages: Pages of each group; those of a member's groups follow each other.
        members: The requests.
    """

    members: tuple[Member, ...]
    pages: dict[str, int] = field(default_factory=dict)
    num_kv_heads: int = 2
    group_size: int = 2
    head_dim: int = 64
    page_size: int = 16
    dtype: torch.dtype = torch.float16
    kv_dtype: torch.dtype | None = None
    magnitude: float = 1.0
    padding_requests: int = 0
    padding_tokens: int = 0
    num_workers: int = 3
    seed: int = 0


@dataclass(slots=True)
class Batch:
    """A case laid out: tensors, and the plan."""

    query: torch.Tensor
    key_pages: torch.Tensor
    value_pages: torch.Tensor
    block_table: torch.Tensor
    query_start: torch.Tensor
    seq_lens: torch.Tensor
    plan: WorkPlan
    scale: float


def lay_out(case: Case, variant: Variant) -> Batch:
    """Give pages in random order, fill what is used with numbers and the rest with NaN."""
    rng = np.random.default_rng(case.seed)
    page = case.page_size
    lens = [sum(case.pages[g] for g in m.groups) * page + m.own_tokens for m in case.members]
    own = [-(-m.own_tokens // page) for m in case.members]
    num_pages = sum(case.pages.values()) + sum(own) + 2
    ids = iter(rng.permutation(num_pages).tolist())
    shared = {group: [next(ids) for _ in range(count)] for group, count in case.pages.items()}
    rows = [
        [page_id for g in m.groups for page_id in shared[g]] + [next(ids) for _ in range(extra)]
        for m, extra in zip(case.members, own, strict=True)
    ]
    num_requests = len(rows) + case.padding_requests
    table = torch.zeros(num_requests, max(map(len, rows)) + 1, dtype=torch.int32)
    # vLLM's layout of a CUDA cache: keys and values of a head beside each other.
    cache = torch.full((num_pages, case.num_kv_heads, page, 2 * case.head_dim), float("nan"))
    generator = torch.Generator().manual_seed(case.seed)
    for row, (request, length) in enumerate(zip(rows, lens, strict=True)):
        table[row, : len(request)] = torch.tensor(request, dtype=torch.int32)
        for index, page_id in enumerate(request):
            used = min(page, length - index * page)
            filled = torch.randn(case.num_kv_heads, used, 2 * case.head_dim, generator=generator)
            cache[page_id, :, :used] = filled * case.magnitude
    kv_dtype = case.kv_dtype or case.dtype
    cache = cache.to(kv_dtype)
    query_lens = [m.query_len for m in case.members] + [0] * case.padding_requests
    query_start = torch.tensor(np.cumsum([0, *query_lens]), dtype=torch.int32)
    seq_lens = torch.tensor(lens + [0] * case.padding_requests, dtype=torch.int32)
    shape = (int(query_start[-1]), case.num_kv_heads * case.group_size, case.head_dim)
    query = (torch.randn(shape, generator=generator) * case.magnitude).to(case.dtype)
    # Shares whatever is common: the tests are about results, not about gain.
    costs = PlanCosts(item=0, partial=0, min_chunk_tokens=16, max_rows=variant.max_rows)
    planner = Planner(page, case.num_workers, costs)
    plan = planner.plan(table.numpy(), query_start.numpy(), seq_lens.numpy())
    return Batch(
        query=query,
        key_pages=cache[..., : case.head_dim],
        value_pages=cache[..., case.head_dim :],
        block_table=table,
        query_start=query_start,
        seq_lens=seq_lens,
        plan=plan,
        scale=case.head_dim**-0.5,
    )


def run(
    case: Case,
    batch: Batch,
    variant: Variant,
    options: ScoreOptions | None = None,
    lse: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernels; return (output, log-sum-exp) with their padding."""
    plan = batch.plan
    num_tokens = plan.num_tokens + case.padding_tokens
    limits = PlanLimits(
        case.num_workers, plan.num_items + 2, num_tokens + 1, plan.num_slots + 1, variant.max_rows
    )
    buffers = PlanBuffers(
        limits,
        num_query_heads=variant.num_query_heads,
        head_dim=case.head_dim,
        device=torch.device("cpu"),
    )
    buffers.partial_output.fill_(float("nan"))
    buffers.load(plan, num_tokens)
    query = torch.cat(
        [batch.query, batch.query.new_zeros(case.padding_tokens, *batch.query.shape[1:])]
    )
    output = torch.full_like(query, float("nan"))
    if lse is None:
        lse = torch.full(query.shape[:2], float("nan"))
    gpu_attention(
        *(query, batch.key_pages, batch.value_pages, batch.block_table, buffers, variant),
        scale=batch.scale,
        options=options,
        output=output,
        lse=lse,
    )
    return output, lse


def expected(batch: Batch, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what float64 gives for each request by itself."""
    return reference_attention(
        *(batch.query.double(), batch.key_pages.double(), batch.value_pages.double()),
        *(batch.block_table, batch.query_start, batch.seq_lens),
        scale=batch.scale,
        dtype=torch.float64,
        **options,
    )


class Recorder:
    """A kernel that keeps its launches."""

    def __init__(self, kernel: Any, launches: list[Callable[[], Any]]) -> None:
        self._kernel, self._launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def record(*arguments: Any, **options: Any) -> None:
            self._launches.append(lambda: self._kernel[grid](*arguments, **options))

        return record
