"""How long calls are under way between the core and their engine: the server's own time.

For each engine the mean of what passes from the decision to start a call until its end is known,
less the engine's own time for it. Tokenising, the way to the engine's process and back, and waiting
for the server's event loop are in it. Simulated engines take it from calibration files.
"""

from __future__ import annotations

from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request

#: Earlier calls count half after about 90.
_WEIGHT = 1 / 128

#: Engines that are gone are forgotten beyond so many, the oldest first.
_MAX_ENGINES = 1024


class CallOverheads:
    """Means of all engines, recent calls first; each engine's first calls count alike."""

    def __init__(self) -> None:
        self._means: dict[EngineId, tuple[float, int]] = {}

    def observe(self, request: Request) -> None:
        """Count a call that has ended; one whose engine does not tell its own time is left out."""
        usage, engine = request.usage, request.engine
        placed_s, ended_s = request.placed_s, request.finished_s
        if usage is None or usage.engine_s is None or engine is None:
            return
        if placed_s is None or ended_s is None:
            return
        overhead_s = max(0.0, ended_s - placed_s - usage.engine_s)
        mean_s, number = self._means.get(engine, (0.0, 0))
        mean_s += max(_WEIGHT, 1 / (number + 1)) * (overhead_s - mean_s)
        self._means[engine] = (mean_s, number + 1)
        if len(self._means) > _MAX_ENGINES:
            del self._means[next(iter(self._means))]

    def mean_s(self, engine: EngineId) -> float | None:
        """Return the mean of an engine's calls; None if it has told nothing yet."""
        found = self._means.get(engine)
        return None if found is None else found[0]
