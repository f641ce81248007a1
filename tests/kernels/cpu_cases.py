"""Data for tests of the CPU kernel: caches in vLLM's layouts, and the same in plain order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parrot_backend.kernels import PlanCosts, Planner, WorkPlan, reference_attention
from parrot_backend.kernels.cpu import KernelLibrary, KvLayout, cpu_attention, pack_pages
from tests.kernels.batches import Case, case_of

#: Greatest error on normally distributed data, against float64.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
#: Plans that cut and share much, however small the batch is.
EAGER = PlanCosts(row=0.01, item=0.5, partial=0.5, max_rows=5, min_chunk_tokens=16)

Result = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Paged:
    """A batch with data: query [T, Hq, D], pages [num_pages, Hkv, page, D], and page ids."""

    case: Case
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    table: torch.Tensor

    def plan(self, *, workers: int = 3, costs: PlanCosts = EAGER) -> WorkPlan:
        planner = Planner(self.case.page_size, workers, costs)
        return planner.plan(self.table.numpy(), self.case.query_start, self.case.seq_lens)

    def expected(self, **features: Any) -> Result:
        """Return attention in float64, request by request."""
        return reference_attention(
            self.query,
            self.keys.nan_to_num(),
            self.values.nan_to_num(),
            self.table,
            torch.from_numpy(self.case.query_start),
            torch.from_numpy(self.case.seq_lens),
            scale=self.query.shape[2] ** -0.5,
            dtype=torch.float64,
            **features,
        )

    def found(
        self,
        library: KernelLibrary,
        *,
        plan: WorkPlan | None = None,
        layout: KvLayout = KvLayout.ROWS,
        **features: Any,
    ) -> Result:
        """Return what the kernel computes."""
        return cpu_attention(
            self.query,
            pack_pages(self.keys, self.values, layout),
            self.table,
            plan or self.plan(),
            scale=self.query.shape[2] ** -0.5,
            layout=layout,
            library=library,
            **features,
        )


def paged(
    case: Case,
    *,
    heads: tuple[int, int] = (4, 2),
    dim: int = 32,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    factor: float = 1.0,
) -> Paged:
    """Return data for a batch: pages in no order, and NaN wherever nothing may be read.

    Args:
        case: The batch.
        heads: Query heads and KV heads.
        dim: Elements of a head.
        dtype: Of everything.
        seed: Of the numbers.
        factor: Of the query.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = np.unique(case.block_table)
    num_pages = len(ids) + 3
    place = torch.randperm(num_pages, generator=generator)[: len(ids)].to(torch.int32)
    table = place[torch.from_numpy(np.searchsorted(ids, case.block_table))]
    used = torch.zeros(num_pages, case.page_size, dtype=torch.bool)
    for row, seq_len in zip(table, case.seq_lens.tolist(), strict=True):
        for position in range(seq_len):
            used[row[position // case.page_size], position % case.page_size] = True
    shape = (num_pages, heads[1], case.page_size, dim)
    keys, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    for pages in (keys, values):
        pages.masked_fill_(~used[:, None, :, None], math.nan)
    query = torch.randn(int(case.query_start[-1]), heads[0], dim, generator=generator) * factor
    return Paged(case, query.to(dtype), keys, values, table)


def layouts_of(data: Paged, library: KernelLibrary) -> list[KvLayout]:
    """Return the layouts that the kernel reads this data in."""
    paired = library.isa.multiplies_bf16 and data.query.dtype is torch.bfloat16
    sizes = data.query.shape[2] % 32 == 0 and data.case.page_size % 32 == 0
    return [KvLayout.ROWS, KvLayout.PAIRS] if paired and sizes else [KvLayout.ROWS]


def groups(
    sizes: list[tuple[int, int]], page: int, *, query_lens: tuple[int, ...] = (1,), own: int = 37
) -> Case:
    """Return groups of requests that share pages.

    Args:
        sizes: Requests and shared pages of each group.
        page: Tokens of a page.
        query_lens: Query tokens of the requests, by turns.
        own: Tokens of each request after what is shared, some more for the later ones.
    """
    tables: list[list[int]] = []
    seq_lens = []
    next_page = 0
    for members, shared in sizes:
        common = list(range(next_page, next_page + shared))
        next_page += shared
        for _ in range(members):
            tokens = own + len(tables) % 5
            pages = -(-tokens // page)
            tables.append(common + list(range(next_page, next_page + pages)))
            next_page += pages
            seq_lens.append(shared * page + tokens)
    lens = [query_lens[i % len(query_lens)] for i in range(len(tables))]
    return case_of(tables, lens, seq_lens, page)


def check(data: Paged, found: Result, expected: Result) -> None:
    """Check a result against float64."""
    error = (found[0].double() - expected[0]).abs().max().item() if len(found[0]) else 0.0
    assert error <= TOLERANCE[data.query.dtype], f"output off by {error}"
    seen = expected[1] != -math.inf
    assert torch.equal(found[1] == -math.inf, ~seen)
    assert ((found[1].double() - expected[1])[seen].abs() < 1e-3).all()
