"""What work costs, in KV tokens read: the unit of every figure here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from parrot_backend.kernels.errors import AttentionError


@dataclass(frozen=True, slots=True)
class PlanCosts:
    """Relative costs of the parts of attention, and limits of the kernel that runs the plan.

    Costs are in the time that reading one KV token (K and V of all KV heads) takes. The defaults
    are for a kernel that memory bounds: with 8 KV heads of 128 in bf16, writing and reading a
    float32 partial moves as many bytes as 8 KV tokens, and arithmetic equals reading at about 46
    query tokens per KV token (32 query heads; H200: 4.3 TB/s, 790 TFLOP/s, half of it reached).

    Attributes:
        kv_token: Reading one KV token.
        row: Arithmetic of one query token with one KV token.
        item: Starting an item.
        partial: Writing one partial and reading it in the merge.
        max_rows: Most query tokens of an item.
        min_chunk_tokens: Fewest KV tokens of an item that is part of a longer range.
        min_saving: What sharing must save, in a whole step, to be chosen.
    """

    kv_token: float = 1.0
    row: float = 1 / 46
    item: float = 16.0
    partial: float = 8.0
    max_rows: int = 16
    min_chunk_tokens: int = 128
    min_saving: float = 512.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            AttentionError: A cost is negative or no number, or a limit is below 1.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            least = 1 if field.name in ("max_rows", "min_chunk_tokens") else 0
            if not (math.isfinite(value) and value >= least):
                raise AttentionError(f"{field.name} must be at least {least}, not {value}")
        if self.kv_token + self.row <= 0:
            raise AttentionError("kv_token and row must not both be 0")
