"""Nodes of a session's graph: LLM requests and text transforms; ``control.py`` adds control nodes.

A call with several outputs becomes one request per output. Each request reads the earlier outputs
of its call as ordinary inputs, so nothing downstream needs to know that they came from one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

from parrot_backend.core.chat import NO_CHAT, ChatOptions
from parrot_backend.core.criteria import UNANNOTATED, Objective
from parrot_backend.core.discovery.beginnings import Beginnings
from parrot_backend.core.discovery.found import Found
from parrot_backend.core.events import RequestUsage
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, SessionId, VariableId
from parrot_backend.core.output_forecast import OutputForecast
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain
from parrot_backend.core.prompt import Input, PromptPart, PromptSegment, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import Transform


class NodeState(Enum):
    """Life of a node. Only requests are ever READY or RUNNING."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    # By identity, since each call looks states up many times.
    __hash__ = object.__hash__


_ENDED = frozenset({NodeState.FINISHED, NodeState.FAILED, NodeState.CANCELLED})

#: Legal moves. RUNNING -> READY is a retry after an engine failed, READY -> FINISHED a request that
#: got the result of an equal one.
NODE_TRANSITIONS: dict[NodeState, frozenset[NodeState]] = {
    NodeState.WAITING: frozenset({NodeState.READY}) | _ENDED,
    NodeState.READY: frozenset({NodeState.RUNNING}) | _ENDED,
    NodeState.RUNNING: frozenset({NodeState.READY}) | _ENDED,
    NodeState.FINISHED: frozenset(),
    NodeState.FAILED: frozenset(),
    NodeState.CANCELLED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Node:
    """What requests, transforms and control nodes have in common.

    Attributes:
        id: Global id.
        inputs: Distinct variables it reads, in order of first use.
        output: The variable it makes.
        index: Rises in its session's topological order; there are gaps.
        missing: Inputs that are not READY yet.
        depth: Longest path from a node without producers among its inputs, in nodes.
        remaining: Longest path to a node nobody reads, in nodes, itself not counted.
        work_tokens: What it is expected to take of time, in generated tokens (see ``outlook.py``).
        path_tokens: The same along the longest path to a node nobody reads, itself counted.
        attained_tokens: Service along the longest path up to here; None if it was not asked for.
    """

    id: NodeId
    inputs: tuple[VariableId, ...]
    output: VariableId
    index: int = 0
    missing: int = 0
    state: NodeState = NodeState.WAITING
    depth: int = 0
    remaining: int = 0
    work_tokens: float = 0.0
    path_tokens: float = 0.0
    attained_tokens: float | None = None
    created_s: float = 0.0
    ready_s: float | None = None
    finished_s: float | None = None

    @property
    def reads(self) -> Collection[VariableId]:
        """Distinct variables it reads, or may come to read."""
        return self.inputs

    @property
    def num_references(self) -> int:
        """How much there is to put together, or to be linked: segments, else what it reads."""
        return len(self.reads)

    @property
    def steps(self) -> int:
        """How many nodes follow one another here: more than itself in what it will bring forth."""
        return 1

    @property
    def has_ended(self) -> bool:
        """True when the state will not change any more."""
        return self.state in _ENDED

    def move(self, state: NodeState) -> None:
        """Change state along the transition table (an illegal move is a defect of ours)."""
        assert state in NODE_TRANSITIONS[self.state], f"{self.id}: {self.state} -> {state}"
        self.state = state


@dataclass(slots=True, eq=False)
class TransformNode(Node):
    """A text computed from inputs as soon as they are there."""

    segments: tuple[Text | Input, ...] = ()
    transforms: tuple[Transform, ...] = ()

    @property
    def num_references(self) -> int:
        """Its segments, constant ones too; each input is one."""
        return len(self.segments)


@dataclass(slots=True, eq=False, kw_only=True)
class Request(Node):
    """One generation of one variable.

    Attributes:
        segments: Everything before the output.
        order: Position among all requests of the server, by submission.
        session_order: Place of its run among all runs, in order of their beginning.
        run_began_s: When its run got that place.
        parts: The resolved prompt, from READY on.
        prefixes: Hashes of the resolved prompt at its boundaries, from READY on.
        unserved_since_s: Since when no live engine serves it, while it is queued.
        prompt_tokens: Estimated length of the resolved prompt.
        attempt: The running attempt.
        reason: Why the engine was chosen, for people.
        usage: What the engine reported at the end.
        chat: How the chat is put to the model, if it is one.
        stage: Which part of the program this is, as the client says.
        quiet: Nobody reads its text while it is generated, in this attempt or in the next one.
        found: What its texts were found to say of it, if they were looked at.
        beginnings: Beginnings of its prompt that others may share, between boundaries.
        forecast: How long its output will be, if calls of its kind were seen.
        kinds: What it has in common with others as to the length of its output.
        token_s: What a generated token takes of time, as far as it was known lately.
        job_tokens: What it is expected to take of an engine, in generated tokens.
        job_level: How much of its job is still to be done (see ``jobs.py``).
        is_pressed: It has so little time left that it goes before what has no deadline.
    """

    session: SessionId
    tenant: str
    model: str | None
    segments: tuple[PromptSegment, ...]
    sampling: Sampling
    order: int = 0
    session_order: int = 0
    run_began_s: float = 0.0
    objective: Objective = UNANNOTATED
    parts: tuple[PromptPart, ...] = ()
    prefixes: PrefixChain = ()
    prompt_tokens: int = 0
    unserved_since_s: float | None = None
    attempt: AttemptId | None = None
    attempts: int = 0
    engine: EngineId | None = None
    avoided: list[EngineId] = field(default_factory=list)
    reason: str | None = None
    usage: RequestUsage | None = None
    placed_s: float | None = None
    first_token_s: float | None = None
    chat: ChatOptions = NO_CHAT
    stage: str | None = None
    quiet: bool = False
    found: Found | None = None
    beginnings: Beginnings = ()
    forecast: OutputForecast | None = None
    kinds: tuple[bytes, ...] = ()
    token_s: float = 0.0
    job_tokens: float = 0.0
    job_level: int = 0
    is_pressed: bool = False

    @property
    def num_references(self) -> int:
        """Its segments, constant ones too; each input is one."""
        return len(self.segments)

    @property
    def need_tokens(self) -> int:
        """KV tokens it may come to hold: prompt (estimated) and the longest output."""
        high_tokens = None if self.forecast is None else self.forecast.high_tokens
        return self.prompt_tokens + self.sampling.reserved_for(high_tokens)

    @property
    def expected_tokens(self) -> float:
        """How long its output is expected to be; without a forecast, what would be reserved."""
        return self.sampling.expected(None if self.forecast is None else self.forecast.mean_tokens)

    @property
    def latest_start_s(self) -> float:
        """When the longest path from here on must begin to meet the deadline; infinity if none."""
        deadline_s = self.objective.deadline_s
        return math.inf if deadline_s is None else deadline_s - self.path_tokens * self.token_s

    @property
    def sharing(self) -> PrefixChain:
        """All boundaries up to which it may share its prompt, shortest first."""
        if not self.beginnings:
            return self.prefixes
        inside = (beginning.boundary for beginning in self.beginnings)
        return tuple(sorted((*self.prefixes, *inside), key=_tokens_of))


def _tokens_of(boundary: PrefixBoundary) -> int:
    return boundary.tokens
