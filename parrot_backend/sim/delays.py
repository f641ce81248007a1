"""Random delays that depend on the seed, the job and its request, and on nothing else.

Two runs of one workload that differ in placement or in the kind of client so have the same delays
wherever they send the same, which keeps comparisons fair.
"""

from __future__ import annotations

from parrot_backend.sim.spec import Delay

_MASK = (1 << 64) - 1

#: Odd constants of the generator SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
_STEP, _MIX_A, _MIX_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Delays:
    """Draws delays.

    Args:
        delay: Their bounds.
        seed: Of all draws.

    Raises:
        ValueError: The bounds are not in order, or negative.
    """

    def __init__(self, delay: Delay, seed: int) -> None:
        if not 0.0 <= delay.min_s <= delay.max_s < float("inf"):
            raise ValueError(f"a delay between {delay.min_s} s and {delay.max_s} s cannot be")
        self._min_s = delay.min_s
        self._range_s = delay.max_s - delay.min_s
        self._seed = _mix(seed & _MASK)

    def draw_s(self, job: int, number: int) -> float:
        """Return the delay of a job's request with that number."""
        if not self._range_s:
            return self._min_s
        bits = _mix(_mix(self._seed + job) + number)
        return self._min_s + self._range_s * ((bits >> 11) / (1 << 53))


def _mix(state: int) -> int:
    state = (state + _STEP) & _MASK
    state = ((state ^ (state >> 30)) * _MIX_A) & _MASK
    state = ((state ^ (state >> 27)) * _MIX_B) & _MASK
    return state ^ (state >> 31)
