"""Baseline policy ``power_of_two``: the less loaded of two engines drawn at random.

Source: M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 12(10),
2001. Two looks bring most of what looking at all engines would.

The draw is a hash of the seed, the request and its attempt, so equal runs draw alike.
"""

from __future__ import annotations

from hashlib import blake2b

from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.baselines import has_room
from parrot_backend.core.scheduling.placement import ClusterView, Placement


class PowerOfTwoPlacement:
    """Of two engines with room the one with fewer running requests, then fewer tokens in use."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request on the less loaded of two."""
        engines = [e for e in view.candidates([request]) if has_room(request, e, view)]
        if not engines:
            return []
        first, second = self._pair(request, len(engines))
        pair = (engines[first], engines[second])
        best = min(pair, key=lambda e: (len(e.running), e.used_tokens, e.order))
        reason = f"less loaded of {pair[0].id} and {pair[1].id}"
        return [Placement(request, best.id, reason)]

    def _pair(self, request: Request, number: int) -> tuple[int, int]:
        """Draw two distinct positions; of one engine, that one twice."""
        text = f"{self._seed}/{request.id}/{request.attempts}".encode("utf-8", "surrogatepass")
        drawn = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
        first = drawn % number
        if number == 1:
            return first, first
        return first, (first + 1 + drawn // number % (number - 1)) % number
