"""Semantic variables: single-assignment values with a transition table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from parrot_backend.core.chat import NO_DETAILS, OutputDetails
from parrot_backend.core.events import RequestUsage
from parrot_backend.core.ids import NodeId, VariableId, WaiterId, name_of
from parrot_backend.errors import Failure


class VariableState(Enum):
    """Life of a variable."""

    EMPTY = "empty"
    GENERATING = "generating"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"

    # By identity, since each call looks states up many times.
    __hash__ = object.__hash__


_SETTLED = frozenset({VariableState.READY, VariableState.FAILED, VariableState.CANCELLED})

#: Legal moves. GENERATING -> EMPTY is a request that runs again after its engine was lost.
TRANSITIONS: dict[VariableState, frozenset[VariableState]] = {
    VariableState.EMPTY: frozenset({VariableState.GENERATING}) | _SETTLED,
    VariableState.GENERATING: frozenset({VariableState.EMPTY}) | _SETTLED,
    VariableState.READY: frozenset(),
    VariableState.FAILED: frozenset(),
    VariableState.CANCELLED: frozenset(),
}


@dataclass(slots=True)
class Variable:
    """One semantic variable.

    Attributes:
        id: Global id.
        producer: The node that makes it; None for an external variable.
        consumers: Nodes that read it, in order of submission, without repeats.
        captors: Control nodes whose instances to come may read it, or might have.
        value: The text, when READY.
        partial: Text generated so far, in the pieces it came in.
        partial_reasoning: The same of the reasoning before it.
        token_ids: Tokens of a generated value, if the engine told them.
        failure: Why there is no value, when FAILED or CANCELLED.
        waiters: Who waits: waiter -> whether it streams.
        details: What the engine told of a generated value.
    """

    id: VariableId
    producer: NodeId | None = None
    consumers: list[NodeId] = field(default_factory=list)
    captors: list[NodeId] = field(default_factory=list)
    state: VariableState = VariableState.EMPTY
    value: str | None = None
    partial: list[str] = field(default_factory=list)
    partial_reasoning: list[str] = field(default_factory=list)
    token_ids: tuple[int, ...] | None = None
    failure: Failure | None = None
    usage: RequestUsage | None = None
    finish_reason: str | None = None
    waiters: dict[WaiterId, bool] = field(default_factory=dict)
    details: OutputDetails = NO_DETAILS

    @property
    def name(self) -> str:
        """The client's name of the variable."""
        return name_of(self.id)

    @property
    def is_settled(self) -> bool:
        """True when the state will not change any more."""
        return self.state in _SETTLED

    def forget_partial(self) -> bool:
        """Forget what was generated so far; return whether there was anything."""
        had_any = bool(self.partial or self.partial_reasoning)
        self.partial.clear()
        self.partial_reasoning.clear()
        return had_any

    def move(self, state: VariableState) -> None:
        """Change state along the transition table (an illegal move is a defect of ours)."""
        assert state in TRANSITIONS[self.state], f"{self.id}: {self.state} -> {state}"
        self.state = state
