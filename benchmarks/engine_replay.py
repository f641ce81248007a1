"""Runs one simulated engine on requests that arrive at given times."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.ids import AttemptId
from parrot_backend.sim.engine import ContinuousBatchingEngine
from parrot_backend.sim.engine_seam import Finished, SimEvent, SimRequest


def replay(
    engine: ContinuousBatchingEngine, arrivals: Iterable[tuple[float, SimRequest]]
) -> dict[AttemptId, Finished]:
    """Return how each request ended.

    Args:
        engine: An engine that has done nothing yet.
        arrivals: When each request comes, in order of time.

    Raises:
        ValueError: The engine refused a request, or never ends one.
    """
    ended: dict[AttemptId, Finished] = {}

    def take(events: Iterable[SimEvent]) -> None:
        for event in events:
            if isinstance(event, Finished):
                ended[event.attempt] = event

    num_started = 0
    for time_s, request in arrivals:
        while (next_s := engine.next_s) is not None and next_s < time_s:
            take(engine.advance(next_s))
        take(engine.advance(time_s))
        engine.start(request, time_s)
        num_started += 1
    while (next_s := engine.next_s) is not None:
        take(engine.advance(next_s))
    if len(ended) < num_started:
        raise ValueError(f"{num_started - len(ended)} of {num_started} requests never ended")
    return ended
