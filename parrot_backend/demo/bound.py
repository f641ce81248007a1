"""The bound that no scheduler can beat at zero load: one round trip plus the critical path.

The critical path is the chain of dependent calls with the largest sum of the engine's own times,
as vLLM measured them in the run itself. Everything else that a run takes - HTTP, tokenising, the
scheduler, hops between processes - is above the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.demo.records import CallRecord


def critical_path(calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """Return the chain of dependent calls that takes longest in the engine, first call first.

    Raises:
        ValueError: Calls need each other in a circle, or one that is not there.
    """
    by_name = {call.name: call for call in calls}
    longest: dict[str, tuple[CallRecord, ...]] = {}
    remaining = list(by_name.values())
    while remaining:
        settled = [call for call in remaining if all(need in longest for need in call.needs)]
        if not settled:
            raise ValueError(f"no order runs the calls {[call.name for call in remaining]}")
        for call in settled:
            before = max((longest[need] for need in call.needs), key=engine_s, default=())
            longest[call.name] = (*before, call)
        remaining = [call for call in remaining if call.name not in longest]
    return max(longest.values(), key=engine_s, default=())


def engine_s(calls: Sequence[CallRecord]) -> float:
    """Return the engine's time for calls that run one after another."""
    return sum(call.engine_s for call in calls)


def bound_s(calls: Sequence[CallRecord], round_trip_s: float) -> float:
    """Return the shortest possible end-to-end time of a program with these calls."""
    return round_trip_s + engine_s(critical_path(calls))
