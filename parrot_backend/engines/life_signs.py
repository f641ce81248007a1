"""Signs of life of an engine while it runs quiet requests, of which nothing is heard for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parrot_backend.core.events import EngineReported
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.base import EngineRequest

#: Pause between two signs: short against any time after which silence is death, long for the core.
_INTERVAL_S = 0.5


class LifeSigns:
    """Tells now and then that there is progress. Who makes progress asks; nothing here has a timer.

    Args:
        engine: The engine's id.
        tell: Takes the signs.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        engine: EngineId,
        tell: Callable[[EngineReported], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sign = EngineReported(engine)
        self._tell = tell
        self._clock = clock
        self._num_quiet = 0
        self._told_s = 0.0

    @contextmanager
    def during(self, request: EngineRequest) -> Iterator[None]:
        """Within, a request runs; others than quiet ones are heard anyway."""
        self._num_quiet += request.quiet
        try:
            yield
        finally:
            self._num_quiet -= request.quiet

    def progress(self) -> None:
        """Take note that the engine went on, and tell it if that is due."""
        if not self._num_quiet:
            return
        now_s = self._clock()
        if now_s - self._told_s >= _INTERVAL_S:
            self._told_s = now_s
            self._tell(self._sign)
