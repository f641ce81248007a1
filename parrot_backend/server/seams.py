"""What the runtime needs of its surroundings: somebody who drives engines, and who looks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from parrot_backend.core.account import Ending
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.criteria import Objective
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.engines.base import EngineRequest


class EngineDriver(Protocol):
    """What the runtime can tell engines. Nothing here blocks or raises."""

    def start(self, engine: EngineId, request: EngineRequest) -> None:
        """Begin an attempt on an engine."""
        ...

    def abort(self, engine: EngineId, attempt: AttemptId) -> None:
        """Stop an attempt."""
        ...

    def update(
        self, engine: EngineId, attempt: AttemptId, objective: Objective, remaining: int
    ) -> None:
        """Change the hints of an attempt."""
        ...

    def retain(self, engine: EngineId, key: bytes, attempt: AttemptId | None) -> None:
        """Keep a prefix until it is released."""
        ...

    def release(self, engine: EngineId, keys: Sequence[bytes]) -> None:
        """Keep prefixes no longer."""
        ...

    def give_up(self, engine: EngineId, reason: str) -> None:
        """End an engine, and start another if that is the policy."""
        ...


class RuntimeObserver(Protocol):
    """Who wants to know what happens; for logs and metrics."""

    def decided(self, elapsed_s: float) -> None:
        """The core took this long for one event."""
        ...

    def discovered(self, elapsed_s: float) -> None:
        """The core took this long for calls whose structure it looked for."""
        ...

    def request_started(self, attempt: AttemptId) -> None:
        """An attempt is on its way to an engine; by the latest decision, after those before it."""
        ...

    def request_ended(self, ending: Ending) -> None:
        """A request has ended for good, in whatever way."""
        ...

    def request_aborted(self, attempt: AttemptId, engine: EngineId) -> None:
        """A running attempt was stopped: nobody needs it any more."""
        ...

    def waiter_answered(self, answer: AnswerWaiter) -> None:
        """A waiter has its answer."""
        ...
