"""What a placement policy may remember of its placements; the scheduler keeps it up to date."""

from __future__ import annotations

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request


class PlacementMemory:
    """Told of all that is placed and ends; policies only read it. This one remembers nothing."""

    def placed(self, request: Request, attempt: AttemptId, engine: EngineState) -> None:
        """Take in that a request goes to an engine."""

    def ended(self, attempt: AttemptId, engine: EngineId) -> None:
        """Take in that an attempt runs no more."""

    def lost(self, engine: EngineId) -> None:
        """Forget an engine and all that ran there; it will not come back under this id."""
