"""Attention over a paged KV cache in plain PyTorch: the specification of every kernel.

Written to be read, not to be fast. Without a tree each request is computed at once; with one, each
segment is computed once for all its members and the partial results are merged by their
log-sum-exp, which is what sharing means. Sources: the online softmax of Milakov and Gimelshein
(arXiv:1805.02867) and the merge of partial attentions as in Hydragen (arXiv:2402.05099).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from parrot_backend.kernels.batch import Batch
from parrot_backend.kernels.errors import AttentionError, TableTooNarrow
from parrot_backend.kernels.merge import add_sinks, merge_partials
from parrot_backend.kernels.prefixes import Int32Array, PrefixTree
from parrot_backend.kernels.work import (
    CAUSAL,
    FLAGS,
    KV_END,
    KV_START,
    NUM_ROWS,
    ROW_START,
    SLOT_START,
    TABLE_ROW,
    WorkPlan,
    check_tree,
)


@dataclass(frozen=True, slots=True)
class PagedKV:
    """Queries and the paged cache that they attend to, with what changes the scores.

    Attributes:
        query: [T, Hq, D].
        key_pages: [num_pages, Hkv, page, D].
        value_pages: Of the same shape.
        block_table: [B, P] Page ids of each request.
        scale: Factor of the scores before the softmax.
        softcap: Bound of the scores, ``cap * tanh(score / cap)``; 0: none.
        window: How many positions a query token sees, its own included; None: all.
        dtype: Of the computation and of the results.
    """

    query: torch.Tensor
    key_pages: torch.Tensor
    value_pages: torch.Tensor
    block_table: torch.Tensor
    scale: float
    softcap: float
    window: int | None
    dtype: torch.dtype

    def attend(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        table_row: int,
        kv_start: int,
        kv_end: int,
        *,
        causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend some query tokens to a range of KV positions of one request.

        Args:
            tokens: [R] Rows of the query.
            positions: [R] Their KV positions.
            table_row: Request whose pages hold the range.
            kv_start: First position.
            kv_end: One past the last position.
            causal: A token sees no position after its own.

        Returns:
            Output [R, Hq, D] and log-sum-exp [R, Hq], natural; 0 and -inf where nothing is seen.
        """
        keys = self._gather(self.key_pages, table_row, kv_start, kv_end)
        values = self._gather(self.value_pages, table_row, kv_start, kv_end)
        query = self.query[tokens].to(self.dtype)
        scores = torch.einsum("rhd,khd->rhk", query, keys) * self.scale
        if self.softcap:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        seen_from = torch.arange(kv_start, kv_end)[None, :]
        at = positions[:, None]
        hidden = seen_from > at if causal else torch.zeros_like(seen_from > at)
        if self.window is not None:
            hidden = hidden | (seen_from <= at - self.window)
        scores = scores.masked_fill(hidden[:, None, :], -math.inf)
        lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - torch.where(lse == -math.inf, 0.0, lse)[..., None])
        return torch.einsum("rhk,khd->rhd", weights, values), lse

    def _gather(self, pages: torch.Tensor, row: int, start: int, end: int) -> torch.Tensor:
        """Return [end - start, Hq, D]: a range of a request, KV heads repeated for their group."""
        page_size = pages.shape[2]
        first = start // page_size
        ids = self.block_table[row, first : -(-end // page_size)].long()
        flat = pages[ids].permute(0, 2, 1, 3).flatten(0, 1)
        range_ = flat[start - first * page_size : end - first * page_size]
        return range_.to(self.dtype).repeat_interleave(self.query.shape[1] // pages.shape[1], dim=1)


def reference_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    query_start: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
    tree: PrefixTree | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute causal attention of a batch over a paged cache, on the CPU.

    Args:
        query: [T, Hq, D].
        key_pages: [num_pages, Hkv, page, D]; Hq is a multiple of Hkv.
        value_pages: Of the same shape.
        block_table: [B, P] Integers, the page ids of each request.
        query_start: [B + 1] Integers; query tokens of request b are
            ``query_start[b] : query_start[b + 1]``, the last of its tokens.
        seq_lens: [B] Integers; 0 for padding.
        scale: Factor of the scores.
        softcap: Bound of the scores; 0: none.
        window: How many positions a query token sees, its own included; None: all.
        sinks: [Hq] A score per head that takes part in the softmax and has no value.
        tree: What requests share; None: compute each request by itself.
        dtype: Of the computation and the results: float32 or float64.

    Returns:
        Output [T, Hq, D] and log-sum-exp [T, Hq] (natural logarithm, sinks included). Padding has
        0 and -inf (with sinks, the sink).

    Raises:
        AttentionError: Shapes do not fit.
        TableTooNarrow: The block table has fewer columns than a sequence has pages.
        TreeMismatch: The tree is of another batch.
    """
    batch = Batch.checked(query_start.numpy(), seq_lens.numpy(), key_pages.shape[2])
    check_cache(query, key_pages, value_pages, block_table, batch)
    paged = PagedKV(query, key_pages, value_pages, block_table, scale, softcap, window, dtype)
    output = torch.zeros(query.shape, dtype=dtype)
    lse = torch.full(query.shape[:2], -math.inf, dtype=dtype)
    own_start = np.zeros(batch.num_requests, np.int32)
    if tree is not None:
        check_tree(tree, batch)
        own_start = tree.own_start_pages()
        _add_nodes(paged, tree, batch, output, lse)
    _add_own(paged, own_start, batch, output, lse)
    if sinks is not None:
        add_sinks(output, lse, sinks)
    return output, lse


def _add_nodes(
    paged: PagedKV, tree: PrefixTree, batch: Batch, output: torch.Tensor, lse: torch.Tensor
) -> None:
    """Compute each shared segment once for all its members."""
    positions = torch.from_numpy(batch.positions())
    for node in range(tree.num_nodes):
        members = tree.order[tree.first_member[node] : tree.end_member[node]]
        tokens = _tokens_of(batch, members.tolist())
        start, end = int(tree.start_page[node]), int(tree.end_page[node])
        bounds = (start * batch.page_size, end * batch.page_size)
        part = paged.attend(tokens, positions[tokens], int(members[0]), *bounds, causal=False)
        _merge_into(output, lse, tokens, part)


def _add_own(
    paged: PagedKV, start_pages: Int32Array, batch: Batch, output: torch.Tensor, lse: torch.Tensor
) -> None:
    """Compute the pages of each request from some page on."""
    positions = torch.from_numpy(batch.positions())
    for request in range(batch.num_requests):
        tokens = _tokens_of(batch, [request])
        if len(tokens):
            start = int(start_pages[request]) * batch.page_size
            end = int(batch.seq_lens[request])
            part = paged.attend(tokens, positions[tokens], request, start, end, causal=True)
            _merge_into(output, lse, tokens, part)


def _tokens_of(batch: Batch, requests: list[int]) -> torch.Tensor:
    """Return the query tokens of some requests."""
    starts = batch.query_start.tolist()
    lens = batch.query_lens.tolist()
    return torch.tensor(
        [t for r in requests for t in range(starts[r], starts[r] + lens[r])], dtype=torch.long
    )


def _merge_into(
    output: torch.Tensor,
    lse: torch.Tensor,
    tokens: torch.Tensor,
    part: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Merge a partial result of some query tokens into what was merged before."""
    total = torch.logaddexp(lse[tokens], part[1])
    safe = torch.where(total == -math.inf, 0.0, total)
    output[tokens] = (
        output[tokens] * torch.exp(lse[tokens] - safe)[..., None]
        + part[0] * torch.exp(part[1] - safe)[..., None]
    )
    lse[tokens] = total


def check_cache(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    batch: Batch,
) -> None:
    """Check that queries, cache and block table belong together.

    Raises:
        AttentionError: Shapes do not fit.
        TableTooNarrow: The block table has fewer columns than a sequence has pages.
    """
    if query.ndim != 3 or key_pages.ndim != 4 or key_pages.shape != value_pages.shape:
        raise AttentionError(
            "query must be [T, Hq, D], key_pages and value_pages [num_pages, Hkv, page, D], "
            f"not {[*query.shape]}, {[*key_pages.shape]}, {[*value_pages.shape]}"
        )
    if query.shape[2] != key_pages.shape[3] or query.shape[1] % key_pages.shape[1]:
        raise AttentionError(
            f"{query.shape[1]} heads of {query.shape[2]} cannot read "
            f"{key_pages.shape[1]} KV heads of {key_pages.shape[3]}"
        )
    if query.shape[0] != batch.num_tokens or len(block_table) != batch.num_requests:
        raise AttentionError(
            f"the batch has {batch.num_requests} requests with {batch.num_tokens} query tokens; "
            f"block_table has {len(block_table)}, query {query.shape[0]}"
        )
    most_pages = int((-(-batch.seq_lens // batch.page_size)).max(initial=0))
    if block_table.ndim != 2 or block_table.shape[1] < most_pages:
        raise TableTooNarrow(
            f"a sequence has {most_pages} pages; block_table is {[*block_table.shape]}"
        )


def planned_attention(
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
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a plan item by item and merge the partials: what a kernel does, in plain PyTorch.

    Arguments and results are those of :func:`reference_attention`, with a plan instead of a batch.

    Raises:
        AttentionError: The plan is of another batch, or for pages of another size.
    """
    if (len(query), key_pages.shape[2]) != (plan.num_tokens, plan.page_size):
        raise AttentionError(
            f"the plan has {plan.num_tokens} query tokens and pages of {plan.page_size}"
        )
    paged = PagedKV(query, key_pages, value_pages, block_table, scale, softcap, window, dtype)
    outputs = torch.zeros(plan.num_slots, *query.shape[1:], dtype=dtype)
    lses = torch.full((plan.num_slots, query.shape[1]), -math.inf, dtype=dtype)
    packed, positions = torch.from_numpy(plan.tokens), torch.from_numpy(plan.positions)
    for item in plan.items.tolist():
        tokens = packed[item[ROW_START] : item[ROW_START] + item[NUM_ROWS]].long()
        out, lse = paged.attend(
            tokens,
            positions[tokens],
            item[TABLE_ROW],
            item[KV_START],
            item[KV_END],
            causal=bool(item[FLAGS] & CAUSAL),
        )
        outputs[item[SLOT_START] : item[SLOT_START] + item[NUM_ROWS]] = out
        lses[item[SLOT_START] : item[SLOT_START] + item[NUM_ROWS]] = lse
    return merge_partials(
        outputs,
        lses,
        torch.from_numpy(plan.slot_ptr),
        torch.from_numpy(plan.slots),
        sinks=sinks,
    )
