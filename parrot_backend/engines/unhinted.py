"""Part of an engine that cannot act on hints and keeps nothing for requests to come."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.core.criteria import Objective
from parrot_backend.core.ids import AttemptId


class UnhintedEngine:
    """Base of engines whose ``EngineInfo`` says no ``takes_updates`` and no ``keeps_prefixes``."""

    def update(self, attempt: AttemptId, objective: Objective, remaining: int) -> None:
        """Do nothing: the engine serves in its own order."""

    def retain(self, key: bytes, attempt: AttemptId | None) -> None:
        """Do nothing: the engine's cache has its own rules."""

    def release(self, keys: Sequence[bytes]) -> None:
        """Do nothing: nothing is kept."""
