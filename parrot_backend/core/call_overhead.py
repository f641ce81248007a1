"""What calls take beside their engine's own time: the server's work, and the way to the engine.

It is the time from the decision to start a call until its end is known, less the engine's time for
it: tokenising, processes in between, waiting for the server's event loop. Calls that are started
together go through the server one after another. So for each engine a line is fitted over recent
calls: overhead = that of a lone call + position among those started together * server's time.
Simulated engines take both from calibration files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from parrot_backend.core.ids import AttemptId, EngineId

#: Engines that are gone, and attempts that never end, are forgotten beyond so many, oldest first.
_MAX_ENGINES, _MAX_ATTEMPTS = 1024, 2**17


class CallOverhead(NamedTuple):
    """What calls take beside the time of one engine.

    Attributes:
        lone_s: A call that is started alone.
        server_s: The part of it that keeps the server busy.
    """

    lone_s: float
    server_s: float


@dataclass(slots=True)
class _Line:
    """Sums of a least squares line, all aged alike."""

    weight: float = 0.0
    positions: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    products: float = 0.0

    def add(self, position: int, overhead_s: float, kept: float) -> None:
        self.weight = kept * self.weight + 1.0
        self.positions = kept * self.positions + position
        self.squares = kept * self.squares + position * position
        self.seconds = kept * self.seconds + overhead_s
        self.products = kept * self.products + position * overhead_s

    def overhead(self) -> CallOverhead:
        mean, mean_s = self.positions / self.weight, self.seconds / self.weight
        variance = self.squares / self.weight - mean * mean
        slope_s = 0.0
        if variance > 1e-9:  # else all were started alike
            slope_s = (self.products / self.weight - mean * mean_s) / variance
        # A call keeps the server busy for no time less than none, nor for more than it takes.
        slope_s = max(0.0, min(slope_s, mean_s / (1.0 + mean)))
        return CallOverhead(mean_s - slope_s * mean, slope_s)


class CallOverheads:
    """Fits of all engines.

    Args:
        ageing: What calls have told counts less by this share with each call after them.
    """

    def __init__(self, ageing: float = 1 / 256) -> None:
        self._kept = 1.0 - ageing
        self._lines: dict[EngineId, _Line] = {}
        self._positions: dict[AttemptId, int] = {}
        self._num_together = 0

    def decided(self) -> None:
        """Something was decided: what it starts is started together."""
        self._num_together = 0

    def started(self, attempt: AttemptId) -> None:
        """An attempt was started."""
        if self._num_together:
            self._positions[attempt] = self._num_together
            if len(self._positions) > _MAX_ATTEMPTS:
                del self._positions[next(iter(self._positions))]
        self._num_together += 1

    def ended(
        self, engine: EngineId, attempt: AttemptId, took_s: float, engine_s: float | None
    ) -> None:
        """An attempt has made its output.

        Args:
            engine: Where.
            attempt: Which.
            took_s: From the decision to start it until its end is known.
            engine_s: The engine's own part of it; None if it does not tell.
        """
        position = self._positions.pop(attempt, 0)
        if engine_s is None:
            return
        line = self._lines.setdefault(engine, _Line())
        line.add(position, max(0.0, took_s - engine_s), self._kept)
        if len(self._lines) > _MAX_ENGINES:
            del self._lines[next(iter(self._lines))]

    def of(self, engine: EngineId) -> CallOverhead | None:
        """Return what is known of an engine; None if it has told nothing yet."""
        line = self._lines.get(engine)
        return None if line is None else line.overhead()
