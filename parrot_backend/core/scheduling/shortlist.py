"""Which engines of many are worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import nsmallest

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.scheduling.cost_terms import Work


def shortlist(
    engines: Sequence[EngineState],
    holders: Mapping[EngineId, int],
    work: Work,
    number: int,
    now_s: float,
) -> Sequence[EngineState]:
    """Return the engines that are worth a look: so many by load, and those that hold something.

    Of those that hold something, twice as many, who holds most first.
    """
    if len(engines) <= 2 * number:
        return engines

    def load(engine: EngineState) -> tuple[float, int]:
        outlook = engine.outlook
        wait_s = max(now_s, engine.load.prefill_until_s)
        return wait_s + (work.output_tokens + outlook.weight) * outlook.step_s, engine.order

    found = {engine.id: engine for engine in nsmallest(number, engines, key=load)}
    by_id = {engine.id: engine for engine in engines}
    for engine_id in list(holders)[: 2 * number]:
        if engine_id in by_id:
            found[engine_id] = by_id[engine_id]
    return list(found.values())
