"""A batch of requests: which query tokens each has, and how long it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.prefixes import Int32Array, IntArray, check_integers


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests in the order of the block table; int64 arrays.

    Attributes:
        query_start: [B + 1] As the caller gave it.
        query_lens: [B] Query tokens; 0 for a request that has no tokens (padding).
        seq_lens: [B] Tokens, query tokens included.
        page_size: Tokens of a page.
        num_full_pages: [B] Pages wholly before the first query token; 0 for padding.
    """

    query_start: IntArray
    query_lens: IntArray
    seq_lens: IntArray
    page_size: int
    num_full_pages: IntArray

    @property
    def num_requests(self) -> int:
        """B."""
        return len(self.seq_lens)

    @property
    def num_tokens(self) -> int:
        """T, tokens of padded requests included."""
        return int(self.query_start[-1])

    @classmethod
    def checked(cls, query_start: IntArray, seq_lens: IntArray, page_size: int) -> Self:
        """Check and complete what a caller gave.

        Raises:
            AttentionError: A shape, type or range is wrong.
        """
        if page_size < 1:
            raise AttentionError(f"page_size must be at least 1, not {page_size}")
        check_integers("query_start", query_start, 1)
        check_integers("seq_lens", seq_lens, 1)
        if len(query_start) != len(seq_lens) + 1:
            raise AttentionError(
                f"query_start must have {len(seq_lens) + 1} entries, not {len(query_start)}"
            )
        query_start = query_start.astype(np.int64)
        seq_lens = seq_lens.astype(np.int64)
        query_lens = np.diff(query_start)
        query_lens[seq_lens == 0] = 0
        before = seq_lens - query_lens
        if query_start[0] != 0 or (np.diff(query_start) < 0).any():
            raise AttentionError("query_start must begin at 0 and never fall")
        if (before < 0).any() or (seq_lens < 0).any():
            raise AttentionError("a sequence is shorter than its query tokens")
        num_full_pages = np.where(query_lens > 0, before // page_size, 0)
        return cls(query_start, query_lens, seq_lens, page_size, num_full_pages)

    @property
    def num_pages(self) -> IntArray:
        """[B] Pages of each request; 0 for padding."""
        pages: IntArray = np.where(self.query_lens > 0, -(-self.seq_lens // self.page_size), 0)
        return pages

    def positions(self) -> Int32Array:
        """Return [T]: the KV position of each query token; -1 of padded requests."""
        lens = np.diff(self.query_start)
        first = np.where(self.query_lens > 0, self.seq_lens - self.query_lens, -1)
        offset = np.arange(self.num_tokens) - np.repeat(self.query_start[:-1], lens)
        offset *= np.repeat(self.query_lens > 0, lens)
        positions: Int32Array = (np.repeat(first, lens) + offset).astype(np.int32)
        return positions
