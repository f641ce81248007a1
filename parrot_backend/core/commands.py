"""Everything the core can ask of its shell, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.chat import NO_CHAT, NO_DETAILS, ChatOptions, OutputDetails, TokenLogprob
from parrot_backend.core.criteria import Objective
from parrot_backend.core.discovery.beginnings import Beginnings
from parrot_backend.core.events import RequestUsage, Timer
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, SessionId, VariableId, WaiterId
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.prompt import PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import Failure


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Run one attempt of a request on an engine.

    Attributes:
        model: None is the engine's default.
        remaining: Longest path from here to a node nobody reads, in nodes.
        prefixes: Boundaries of the prompt, one for each part that is not a role.
        retain: Hashes of boundaries and beginnings that the engine shall keep when it has computed
            them.
        beginnings: Beginnings that end inside of a part and that others may share.
        reason: Why this engine, for people.
        quiet: Nobody reads the text while it is generated; it may be told all at the end.
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
    remaining: int
    prefixes: PrefixChain
    retain: tuple[bytes, ...]
    reason: str
    chat: ChatOptions = NO_CHAT
    quiet: bool = False
    beginnings: Beginnings = ()


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What is known of a running attempt has changed."""

    engine: EngineId
    attempt: AttemptId
    objective: Objective
    remaining: int


@dataclass(frozen=True, slots=True)
class FillPrefix:
    """Compute the known part of a prompt to come, in spare capacity only.

    Attributes:
        attempt: Id of the fill, for ``AbortRequest``. It ends like an attempt, without text.
        parts: The whole prompt, with placeholders from ``num_known`` on.
        num_known: How many leading parts are to be computed.
        prefixes: Boundaries of the known parts.
        retain: Hashes of those that the engine shall keep.
    """

    engine: EngineId
    attempt: AttemptId
    session: SessionId
    tenant: str
    model: str | None
    parts: tuple[PromptPart, ...]
    num_known: int
    prefixes: PrefixChain
    retain: tuple[bytes, ...]
    chat: ChatOptions = NO_CHAT


@dataclass(frozen=True, slots=True)
class StageRequest:
    """Hold a request ready that goes on where a running attempt ends, on the same engine.

    If the engine goes on with it, it says so in ``RequestFinished.spliced`` of that attempt, and
    then speaks of this one as of any; else nothing is heard of it.

    Attributes:
        after: The running attempt.
        gap: Position of the part where its output goes; that part is empty.
        max_gap_tokens: Longest output that can come there.
        quiet: As in ``StartRequest``.
    """

    engine: EngineId
    attempt: AttemptId
    after: AttemptId
    gap: int
    session: SessionId
    tenant: str
    model: str | None
    parts: tuple[PromptPart, ...]
    sampling: Sampling
    objective: Objective
    remaining: int
    max_gap_tokens: int
    chat: ChatOptions = NO_CHAT
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class RetainPrefix:
    """Keep a prefix; ``attempt`` names the finished one whose prompt and output it is."""

    engine: EngineId
    key: bytes
    attempt: AttemptId | None


@dataclass(frozen=True, slots=True)
class ReleasePrefixes:
    """Nobody wants these prefixes any more."""

    engine: EngineId
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """Stop an attempt; nothing it still says will be heard.

    ``is_early`` says that it was a fill or a staged request: no call has begun to run by it.
    """

    engine: EngineId
    attempt: AttemptId
    is_early: bool = False


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
    details: OutputDetails = NO_DETAILS


@dataclass(frozen=True, slots=True)
class FollowInstance:
    """Whoever is told of ``waiter`` is told of another, too: an output in an instance of a body."""

    waiter: WaiterId
    follower: WaiterId
    variable: VariableId


@dataclass(frozen=True, slots=True)
class StreamText:
    """More text for a waiter that streams, or more of the reasoning before it.

    ``logprobs`` are those of some tokens, in order; ``AnswerWaiter`` has all.
    """

    waiter: WaiterId
    text: str
    is_reasoning: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()


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
    StartRequest
    | UpdateRequest
    | AbortRequest
    | FillPrefix
    | StageRequest
    | RetainPrefix
    | ReleasePrefixes
    | AnswerWaiter
    | FollowInstance
    | StreamText
    | ResetStream
    | CloseEngine
    | SetTimer
)
