"""Whose kernel stands in the CUDA graphs of a KV cache group. Imports neither vLLM nor torch.

vLLM captures a graph for each of some batch sizes, pads a batch to one of them and replays it. It
does not tell a backend that it will, so what is of a captured size counts as captured: a plan of
all requests is right outside of the graph as well. Only decode batches of one query token each are
captured, so other batches of as many tokens have another number of requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.kernels.errors import AttentionError


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Size of a batch, with its padding.

    Attributes:
        requests: Rows of its block table.
        tokens: Query tokens.
    """

    requests: int
    tokens: int


class CapturedBatches:
    """What was captured of one group, and at which address its block table lies."""

    def __init__(self) -> None:
        self._tables: dict[BatchSize, int | None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was captured yet."""
        return not self._tables

    def note(self, size: BatchSize, table_address: int, *, is_ours: bool) -> None:
        """Note that a batch is being captured, or was and is replayed as a dummy.

        Args:
            size: Its size.
            table_address: Where its block table begins on the device.
            is_ours: Our kernel computes it; else vLLM's.
        """
        self._tables.setdefault(size, table_address if is_ours else None)

    def is_ours(self, size: BatchSize) -> bool | None:
        """Tell whether a captured batch is computed by our kernel; None if there is none."""
        return None if size not in self._tables else self._tables[size] is not None

    def check_table(self, size: BatchSize, table_address: int) -> None:
        """Check that a batch's block table lies where the graph reads it.

        Raises:
            AttentionError: It does not; the graph would read other pages.
        """
        captured = self._tables.get(size)
        if captured is not None and captured != table_address:
            raise AttentionError(
                f"a graph of {size.requests} requests was captured with another block table; "
                'set {"parrot": {"attention_graphs": false}}'
            )
