"""Random queries and caches, and dense attention in float64 to compare with."""

from __future__ import annotations

import math

import numpy as np
import torch

from tests.kernels.batches import Case

Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 16


def data_of(
    case: Case, seed: int, *, factor: float = 1.0, dtype: torch.dtype = torch.float32
) -> Data:
    """Return query, keys, values and block table; NaN wherever nothing may be read."""
    generator = torch.Generator().manual_seed(seed)
    ids = np.unique(case.block_table)
    # Pages are numbered anew, at random places among others.
    place = torch.randperm(len(ids) + 3, generator=generator)[: len(ids)].to(torch.int32)
    table = place[torch.from_numpy(np.searchsorted(ids, case.block_table))]
    used = torch.zeros(len(ids) + 3, case.page_size, dtype=torch.bool)
    for row, seq_len in zip(table, case.seq_lens.tolist(), strict=True):
        for position in range(seq_len):
            used[row[position // case.page_size], position % case.page_size] = True
    shape = (len(ids) + 3, KV_HEADS, case.page_size, HEAD_SIZE)
    keys, values = (torch.randn(shape, generator=generator) for _ in range(2))
    for pages in (keys, values):
        pages.masked_fill_(~used[:, None, :, None], math.nan)
    query = torch.randn(int(case.query_start[-1]), HEADS, HEAD_SIZE, generator=generator)
    return (query * factor).to(dtype), keys.to(dtype), values.to(dtype), table


def dense(
    case: Case,
    data: Data,
    scale: float,
    *,
    softcap: float = 0.0,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention one query token and one head at a time, in float64, from copied tokens."""
    query, keys, values = (each.double().numpy() for each in data[:3])
    output = np.zeros((len(query), HEADS, HEAD_SIZE))
    lse = np.full((len(query), HEADS), -np.inf)
    for request, seq_len in enumerate(case.seq_lens.tolist()):
        start, stop = case.query_start[request : request + 2].tolist()
        positions = np.arange(seq_len)
        ids, at = data[3][request].numpy()[positions // case.page_size], positions % case.page_size
        for token in range(start, stop if seq_len else start):
            end = seq_len - (stop - 1 - token)
            seen = slice(0 if window is None else max(0, end - window), end)
            for head in range(HEADS):
                kv = head // (HEADS // KV_HEADS)
                scores = keys[ids[seen], kv, at[seen]] @ query[token, head] * scale
                if softcap:
                    scores = softcap * np.tanh(scores / softcap)
                if sinks is not None:
                    scores = np.append(scores, float(sinks[head]))
                top = scores.max()
                weights = np.exp(scores - top)
                lse[token, head] = top + np.log(weights.sum())
                weights = weights / weights.sum()
                output[token, head] = (
                    weights[: seen.stop - seen.start] @ values[ids[seen], kv, at[seen]]
                )
    return torch.from_numpy(output), torch.from_numpy(lse)
