"""What the core asks to be woken for, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.ids import EngineId, NodeId, SessionId


@dataclass(frozen=True, slots=True)
class SessionTimer:
    """Check whether a session has been idle for too long."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class EngineTimer:
    """Check whether an engine with running requests has gone silent."""

    engine: EngineId


@dataclass(frozen=True, slots=True)
class NoEngineTimer:
    """Check for queued requests that no engine can serve."""


@dataclass(frozen=True, slots=True)
class RetryTimer:
    """Queue a failed request again."""

    node: NodeId


Timer = SessionTimer | EngineTimer | NoEngineTimer | RetryTimer
