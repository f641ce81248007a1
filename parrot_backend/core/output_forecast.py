"""How long an output will be, as far as earlier calls of its kind tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutputForecast:
    """Distribution of the length of an output, in tokens.

    Attributes:
        mean_tokens: Expected length; orders and costs go by it.
        high_tokens: Nine of ten are not longer; memory is reserved for it.
        num_seen: Outputs of its kind that it was learnt from.
    """

    mean_tokens: float
    high_tokens: int
    num_seen: int
