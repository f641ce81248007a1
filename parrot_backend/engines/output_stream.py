"""The queue between the work of an engine and the one reader of its ``outputs``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from parrot_backend.core.events import EngineReported
from parrot_backend.core.ids import AttemptId
from parrot_backend.engines.base import EngineDied, EngineOutput


class OutputStream:
    """Outputs in the order in which they were put; ends once, either well or with a death."""

    def __init__(self) -> None:
        self._outputs: deque[EngineOutput] = deque()
        self._ready = asyncio.Event()
        self._is_over = False
        self._cause_of_death: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing can be added any more."""
        return self._is_over

    def put(self, output: EngineOutput) -> None:
        """Add an output; after the end it is dropped, because nobody may hear of it."""
        if self._is_over:
            return
        self._outputs.append(output)
        self._ready.set()

    def silence(self, attempt: AttemptId) -> None:
        """Take back what the reader has not seen yet of an aborted attempt."""
        if any(_is_of(output, attempt) for output in self._outputs):
            self._outputs = deque(o for o in self._outputs if not _is_of(o, attempt))

    def end(self) -> None:
        """End the stream after what is in it. Idempotent; a death stays a death."""
        self._is_over = True
        self._ready.set()

    def die(self, reason: str) -> None:
        """Raise ``EngineDied`` after what is in the stream, unless it has ended before."""
        if not self._is_over:
            self._cause_of_death = reason
        self.end()

    async def read(self) -> AsyncIterator[EngineOutput]:
        """Yield the outputs; for one reader.

        Raises:
            EngineDied: The stream ended with a death.
        """
        while True:
            while self._outputs:
                yield self._outputs.popleft()
            if self._cause_of_death is not None:
                raise EngineDied(self._cause_of_death)
            if self._is_over:
                return
            self._ready.clear()
            await self._ready.wait()


def _is_of(output: EngineOutput, attempt: AttemptId) -> bool:
    return not isinstance(output, EngineReported) and output.attempt == attempt
