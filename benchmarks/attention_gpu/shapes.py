"""Batches that share prefixes as trees, and what the chip's limits say of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Tree:
    """A balanced tree of prefixes; each node of the last level is a request.

    Attributes:
        nodes: How many nodes each level has; each count is a multiple of the one before.
        tokens: Tokens of each node of a level.
    """

    nodes: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def batch(self) -> int:
        """Requests."""
        return self.nodes[-1]

    @property
    def seq_len(self) -> int:
        """Tokens of each request."""
        return sum(self.tokens)

    @property
    def unique_tokens(self) -> int:
        """Tokens that have to be read at least."""
        return sum(n * t for n, t in zip(self.nodes, self.tokens, strict=True))

    @property
    def name(self) -> str:
        """Nodes by level, then tokens by level."""
        return f"{','.join(map(str, self.nodes))}_{','.join(map(str, self.tokens))}"

    @classmethod
    def parse(cls, name: str) -> Tree:
        """Return the tree with a name."""
        nodes, tokens = (tuple(map(int, part.split(","))) for part in name.split("_"))
        return cls(nodes, tokens)


@dataclass(frozen=True, slots=True)
class Shape:
    """A tree, and the model that attends to it."""

    tree: Tree
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    page_size: int

    def bound_us(self, bytes_per_s: float, flop_per_s: float) -> float:
        """Return the time below which no kernel can be: unique bytes, or all multiplications."""
        row_bytes = 2 * self.num_query_heads * self.head_dim * 2
        token_bytes = 2 * self.num_kv_heads * self.head_dim * 2
        size = self.tree.unique_tokens * token_bytes + self.tree.batch * row_bytes
        work = 4 * self.tree.batch * self.tree.seq_len * self.num_query_heads * self.head_dim
        return max(size / bytes_per_s, work / flop_per_s) * 1e6


#: The trees of PAT's kernel benchmark (github.com/flashserve/PAT, benchmark/run_kernel_bench.sh).
PAT_TREES = tuple(
    map(
        Tree.parse,
        (
            *("1,10_4096,416", "1,256_256,32", "1,1024_2048,32", "1,2,64_1024,256,256"),
            *("1,4,256_32,256,32", "1,8,512_32,512,256", "1,8,512_32,2048,256"),
            *("1,8,512_512,512,256", "1,4,8,256_32,256,256,32"),
            *("1,4,16,512_1024,256,128,32", "1,4,16,64,256,1024_256,32,256,64,32,256"),
            "1,16,32,64,128,1024_256,128,64,32,32,32",
            "1,16,32,64,256,1024_256,128,64,32,32,32",
            "1,8,16,32,64,128,1024_256,128,64,32,32,32,32",
            "1,8,16,32,64,256,1024_256,128,64,32,32,32,32",
            *("2,8,16,256_256,256,32,32", "4,16,256,512_512,32,128,32"),
            *("8,16,32,256_512,512,256,32", "256_1024", "256_4096"),
        ),
    )
)
#: Its query and KV heads, and its page size.
PAT_HEADS = ((32, 32), (16, 8), (32, 8), (64, 8))
PAT_PAGE = 32

#: Query and KV heads of Llama 3 8B and of Llama 2 13B.
MODELS = ((32, 8), (40, 40))
GRID_BATCHES = (64, 16, 256)
GRID_PREFIXES = (6144, 16384, 2048, 1024)
GRID_SUFFIXES = (128, 512)
GRID_GROUPS = (1, 4, 16)
GRID_PAGE = 64
#: What leaves room for contenders' copies on a card of 139 GiB.
MOST_CACHE_BYTES = 24 * 2**30


def shapes() -> Iterator[Shape]:
    """Yield the grid and the published trees, in turn for each model, the most telling first."""
    yield from _grid(*MODELS[0])
    yield from _published(*PAT_HEADS[2])
    yield from _grid(*MODELS[1])
    for heads in (PAT_HEADS[0], PAT_HEADS[3], PAT_HEADS[1]):
        yield from _published(*heads)


def _published(num_query_heads: int, num_kv_heads: int) -> Iterator[Shape]:
    """Yield the published trees for a model."""
    for tree in PAT_TREES:
        yield Shape(tree, num_query_heads, num_kv_heads, 128, PAT_PAGE)


def _grid(num_query_heads: int, num_kv_heads: int) -> Iterator[Shape]:
    """Yield prefixes x suffixes x groups x batches for a model, as far as they fit."""
    for prefix, suffix, groups, batch in itertools.product(
        GRID_PREFIXES, GRID_SUFFIXES, GRID_GROUPS, GRID_BATCHES
    ):
        tree = Tree((groups, batch), (prefix, suffix))
        if tree.unique_tokens * num_kv_heads * 512 <= MOST_CACHE_BYTES:
            yield Shape(tree, num_query_heads, num_kv_heads, 128, GRID_PAGE)


def tiny_shapes() -> Iterator[Shape]:
    """Yield shapes for the dry run."""
    yield Shape(Tree((1, 4), (64, 16)), 4, 2, 64, 16)
    yield Shape(Tree((2, 4, 8), (32, 16, 16)), 4, 1, 64, 16)
    yield Shape(Tree((3,), (48,)), 2, 2, 64, 16)


def level_pages(tree: Tree, page_size: int) -> list[npt.NDArray[np.int32]]:
    """Return the page ids [nodes, pages] of each level; ids are in random order.

    Raises:
        ValueError: A node is no whole number of pages.
    """
    if any(tokens % page_size for tokens in tree.tokens):
        raise ValueError(f"{tree.name} does not consist of pages of {page_size} tokens")
    sizes = [(n, t // page_size) for n, t in zip(tree.nodes, tree.tokens, strict=True)]
    ids = np.random.default_rng(0).permutation(sum(n * p for n, p in sizes)).astype(np.int32)
    ends = np.cumsum([n * p for n, p in sizes])
    parts = np.split(ids, ends[:-1])
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


def block_table(tree: Tree, page_size: int) -> npt.NDArray[np.int32]:
    """Return [batch, pages]: the pages of each request."""
    levels = level_pages(tree, page_size)
    batch = tree.batch
    columns = [np.repeat(level, batch // len(level), axis=0) for level in levels]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))
