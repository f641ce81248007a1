"""Puts a step's plan where the kernels read it: one block of int32 words at a fixed address.

The block starts with a header of offsets, so that only what the plan has is copied, in one piece,
and a captured launch finds a plan of any size. Partials lie in buffers of fixed size beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.prefixes import Int32Array
from parrot_backend.kernels.work import NUM_ROWS, WorkPlan

#: Header words: where worker_ptr, items, tokens, positions, slot_ptr and slots begin, then T.
HEADER_WORDS = 8
#: Host copies of the block: so many steps may be prepared before one is copied.
NUM_HOST_COPIES = 3
INT32_MAX = 2**31 - 1


class PlanTooLarge(AttentionError):  # noqa: N818 - reads as what is wrong
    """A plan does not fit the buffers; use plain attention for the step, or larger buffers."""

    code = "attention_plan_too_large"


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """The largest plan that buffers hold.

    Attributes:
        num_workers: Of each plan, exactly: the grid follows from it.
        max_items: N.
        max_tokens: T, with the padding of a captured batch.
        max_slots: S.
        max_rows: Query tokens of an item, ``Variant.max_rows``.
    """

    num_workers: int
    max_items: int
    max_tokens: int
    max_slots: int
    max_rows: int

    @classmethod
    def for_batches(
        cls, max_requests: int, max_tokens: int, *, num_workers: int, max_rows: int
    ) -> PlanLimits:
        """Return limits for batches whose prefixes are up to three levels deep.

        A plan has an item for each tile of query tokens of a node or a request, and one more for
        each cut between two workers; each level of a tree holds a query token at most once. A plan
        that shares nothing has one level, so it always fits.
        """
        levels = 4
        tiles = levels * (max_requests + -(-max_tokens // max_rows))
        return cls(
            num_workers=num_workers,
            max_items=tiles + num_workers,
            max_tokens=max_tokens,
            max_slots=levels * max_tokens + num_workers * max_rows,
            max_rows=max_rows,
        )

    @property
    def num_words(self) -> int:
        """Words of the block."""
        arrays = self.num_workers + 1 + 8 * self.max_items + 3 * self.max_tokens + 1
        return HEADER_WORDS + arrays + self.max_slots

    def check(self, plan: WorkPlan, num_tokens: int) -> None:
        """Check that a plan fits.

        Raises:
            AttentionError: The plan is for another number of workers or for larger tiles, or has
                more query tokens than ``num_tokens``.
            PlanTooLarge: It has more of something than the buffers hold.
        """
        if plan.num_workers != self.num_workers:
            raise AttentionError(
                f"the plan is for {plan.num_workers} workers, the grid has {self.num_workers}"
            )
        most_rows = int(plan.items[:, NUM_ROWS].max(initial=0))
        if most_rows > self.max_rows:
            raise AttentionError(
                f"an item has {most_rows} query tokens, a tile holds {self.max_rows}: "
                "set PlanCosts.max_rows"
            )
        if num_tokens < plan.num_tokens:
            raise AttentionError(f"the plan has {plan.num_tokens} query tokens, not {num_tokens}")
        reason = self.why_too_large(plan, num_tokens)
        if reason is not None:
            raise PlanTooLarge(reason)

    def why_too_large(self, plan: WorkPlan, num_tokens: int | None = None) -> str | None:
        """Return what of a plan the buffers cannot hold; None if it fits.

        Args:
            plan: For this grid, with tiles of this size.
            num_tokens: Query tokens with the padding of a captured batch; the plan's by default.
        """
        num_tokens = plan.num_tokens if num_tokens is None else num_tokens
        for name, size, limit in (
            ("items", plan.num_items, self.max_items),
            ("query tokens", num_tokens, self.max_tokens),
            ("partials", plan.num_slots, self.max_slots),
        ):
            if size > limit:
                return f"the plan has {size} {name}; the buffers hold {limit}"
        return None


def pack_plan(plan: WorkPlan, num_tokens: int, words: Int32Array) -> int:
    """Write a plan into a block; return how many words it takes.

    Args:
        plan: The plan.
        num_tokens: Query tokens with padding; padding has no partial.
        words: The block, large enough.
    """
    padding = num_tokens - plan.num_tokens
    parts = (
        plan.worker_ptr,
        plan.items.reshape(-1),
        plan.tokens,
        plan.positions,
        plan.slot_ptr,
        np.full(padding, plan.slot_ptr[-1], np.int32),
        plan.slots,
    )
    ends = np.cumsum([HEADER_WORDS, *(len(part) for part in parts)])
    # The padding of slot_ptr belongs to slot_ptr.
    words[:5] = ends[:5]
    words[5:HEADER_WORDS] = ends[6], num_tokens, 0
    for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
        words[start:end] = part
    return int(ends[-1])


class PlanBuffers:
    """A plan and its partials on a device, for all layers of a step and step after step.

    The addresses never change, so launches that use them can be captured in a CUDA graph. A plan is
    loaded outside of the graph, before it is replayed, on the same stream.

    Attributes:
        limits: What fits.
        num_tokens: Query tokens, with padding, of the plan that is loaded.
        plan: [limits.num_words] The block.
        partial_output: [max_slots, Hq, D] float32.
        partial_lse: [max_slots, Hq] float32, base 2.
    """

    def __init__(
        self, limits: PlanLimits, *, num_query_heads: int, head_dim: int, device: torch.device
    ) -> None:
        """Allocate.

        Raises:
            AttentionError: Partials would need 64-bit offsets.
        """
        if limits.max_slots * num_query_heads * head_dim > INT32_MAX:
            raise AttentionError(f"{limits.max_slots} partials are more than 32-bit offsets reach")
        self.limits = limits
        self.num_tokens = 0
        self.plan = torch.zeros(limits.num_words, dtype=torch.int32, device=device)
        shape = (limits.max_slots, num_query_heads)
        self.partial_output = torch.empty(*shape, head_dim, dtype=torch.float32, device=device)
        self.partial_lse = torch.empty(shape, dtype=torch.float32, device=device)
        self._is_cuda = device.type == "cuda"
        self._copies = [
            torch.zeros(limits.num_words, dtype=torch.int32, pin_memory=self._is_cuda)
            for _ in range(NUM_HOST_COPIES)
        ]
        self._copied: list[torch.cuda.Event | None] = [None] * NUM_HOST_COPIES
        self._turn = 0

    def load(self, plan: WorkPlan, num_tokens: int | None = None) -> None:
        """Bring a plan to the device, on the current stream and without waiting for it.

        Args:
            plan: The step's plan.
            num_tokens: Query tokens with the padding of a captured batch; the plan's by default.

        Raises:
            AttentionError: The plan is for another grid or larger tiles.
            PlanTooLarge: It does not fit.
        """
        num_tokens = plan.num_tokens if num_tokens is None else num_tokens
        self.limits.check(plan, num_tokens)
        turn = self._turn
        self._turn = (turn + 1) % NUM_HOST_COPIES
        copied = self._copied[turn]
        if copied is not None:
            copied.synchronize()
        host = self._copies[turn]
        size = pack_plan(plan, num_tokens, host.numpy())
        self.plan[:size].copy_(host[:size], non_blocking=True)
        self.num_tokens = num_tokens
        if self._is_cuda:
            event = copied or torch.cuda.Event()
            event.record()
            self._copied[turn] = event
