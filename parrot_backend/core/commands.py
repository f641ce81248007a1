"""Everything the core can ask of its shell, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.criteria import Objective
from parrot_backend.core.events import RequestUsage, Timer
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, SessionId, VariableId, WaiterId
from parrot_backend.core.prompt import PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import Failure


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Run one attempt of a request on an engine.

    ``model`` None is the engine's default. ``reason`` says why this engine, for people.
    """

    engine: EngineId
    attempt: AttemptId
    node: NodeId
    session: SessionId
    tenant: str
    model: str | None
    parts: tuple[PromptPart, ...]
    sampling: Sampling
    objective: Objective
    reason: str


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """Stop an attempt; nothing it still says will be heard."""

    engine: EngineId
    attempt: AttemptId


@dataclass(frozen=True, slots=True)
class AnswerWaiter:
    """The variable is settled; tell whoever waits. Each waiter gets exactly one."""

    waiter: WaiterId
    variable: VariableId
    state: VariableState
    value: str | None
    failure: Failure | None
    usage: RequestUsage | None
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class StreamText:
    """More text for a waiter that streams."""

    waiter: WaiterId
    text: str


@dataclass(frozen=True, slots=True)
class ResetStream:
    """The streamed text is void: the request runs again elsewhere."""

    waiter: WaiterId


@dataclass(frozen=True, slots=True)
class CloseEngine:
    """Give up a silent engine: end what is left of it, and start another if that is the policy."""

    engine: EngineId
    reason: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send ``TimerFired(timer)`` at ``at_s``; a later one for an equal timer replaces it."""

    timer: Timer
    at_s: float


Command = (
    StartRequest | AbortRequest | AnswerWaiter | StreamText | ResetStream | CloseEngine | SetTimer
)
