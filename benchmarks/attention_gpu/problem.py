"""The tensors of a shape: one cache that all contenders read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.attention_gpu.shapes import Shape, block_table


@dataclass(frozen=True, slots=True)
class Problem:
    """A decode step.

    Attributes:
        shape: What it is.
        query: [batch, Hq, D].
        keys: [pages, Hkv, page, D], beside the values in memory, as vLLM has them.
        values: The same.
        table: [batch, pages] int32, on the CPU.
        device_table: The same on the device.
        seq_lens: [batch] int32, on the CPU.
    """

    shape: Shape
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    table: npt.NDArray[np.int32]
    device_table: torch.Tensor
    seq_lens: npt.NDArray[np.int32]

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return float(self.shape.head_dim**-0.5)

    @property
    def query_start(self) -> npt.NDArray[np.int32]:
        """[batch + 1] One query token a request."""
        return np.arange(self.shape.tree.batch + 1, dtype=np.int32)


#: Together, the caches of the layers are several times as large as an L2 cache (H200: 50 MB).
LAYERS_BYTES = 200 * 2**20
MOST_LAYERS = 20


def make_layers(shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Problem]:
    """Return as many problems of a shape as it takes to read each from memory, not from L2."""
    token_bytes = 4 * shape.num_kv_heads * shape.head_dim
    count = -(-LAYERS_BYTES // (shape.tree.unique_tokens * token_bytes))
    return [make_problem(shape, device, dtype, seed) for seed in range(min(count, MOST_LAYERS))]


def make_problem(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Problem:
    """Fill a cache with numbers from N(0, 1)."""
    table = block_table(shape.tree, shape.page_size)
    generator = torch.Generator(device).manual_seed(seed)
    size = (int(table.max()) + 1, shape.num_kv_heads, shape.page_size, 2 * shape.head_dim)
    cache = torch.randn(size, generator=generator, device=device, dtype=dtype)
    heads = (shape.tree.batch, shape.num_query_heads, shape.head_dim)
    return Problem(
        shape=shape,
        query=torch.randn(heads, generator=generator, device=device, dtype=dtype),
        keys=cache[..., : shape.head_dim],
        values=cache[..., shape.head_dim :],
        table=table,
        device_table=torch.from_numpy(table).to(device),
        seq_lens=np.full(shape.tree.batch, shape.tree.seq_len, np.int32),
    )


def expected(problem: Problem, requests: list[int]) -> torch.Tensor:
    """Return what float64 gives for some requests: [requests, Hq, D]."""
    shape = problem.shape
    group = shape.num_query_heads // shape.num_kv_heads
    found = []
    for request in requests:
        pages = problem.device_table[request].long()
        keys, values = (
            part[pages].transpose(1, 2).flatten(0, 1).double().repeat_interleave(group, 1)
            for part in (problem.keys, problem.values)
        )
        scores = torch.einsum("hd,khd->hk", problem.query[request].double(), keys)
        weights = torch.softmax(scores * problem.scale, -1)
        found.append(torch.einsum("hk,khd->hd", weights, values))
    return torch.stack(found)
