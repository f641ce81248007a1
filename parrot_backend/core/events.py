"""Everything that can happen to the core, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.chat import NO_CHAT, NO_DETAILS, ChatOptions, OutputDetails, TokenLogprob
from parrot_backend.core.control_specs import ControlSpec
from parrot_backend.core.criteria import Criteria
from parrot_backend.core.ids import AttemptId, EngineId, SessionId, VariableId, WaiterId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import Input, Segment, Text
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.core.timers import EngineTimer as EngineTimer
from parrot_backend.core.timers import NoEngineTimer as NoEngineTimer
from parrot_backend.core.timers import RetryTimer as RetryTimer
from parrot_backend.core.timers import SessionTimer as SessionTimer
from parrot_backend.core.timers import Timer as Timer
from parrot_backend.core.transforms import Transform


@dataclass(frozen=True, slots=True)
class VariableSpec:
    """An external variable; without a value it is set later."""

    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One call of a model. The segments hold one or more outputs; None takes the default model.

    ``stage``: which part of the program it is, as the client says.
    """

    name: str
    segments: tuple[Segment, ...]
    model: str | None = None
    chat: ChatOptions = NO_CHAT
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """A text computed on the server: segments in order, then transforms."""

    name: str
    segments: tuple[Text | Input, ...]
    transforms: tuple[Transform, ...]
    output: VariableId


NodeSpec = CallSpec | TransformSpec | ControlSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """A variable the user will get, and who waits for it (None: nobody yet).

    Without criteria it is only reported: nothing is deduced from it. With ``instances``, what calls
    make in instances of the control node that makes it is reported, too.
    """

    variable: VariableId
    criteria: Criteria | None
    waiter: WaiterId | None = None
    stream: bool = False
    instances: bool = False


@dataclass(frozen=True, slots=True)
class GraphSubmitted:
    """A graph for a new session, or more of it for a live one.

    ``digest`` tells a repeated ``idempotency_key`` with another body. ``is_new``: the session id
    was made for it. ``quiet``: nobody reads its texts while they are generated, as far as it tells.
    ``discovers``: what its calls read is found in their texts. ``is_run``: a new session is one run
    of a program, which has one place in the order (``ages.py``). ``ttl_s``: of a new session.
    """

    session: SessionId
    is_new: bool
    tenant: str = "default"
    app: str = ""
    metadata: tuple[tuple[str, str | int | float | bool | None], ...] = ()
    idempotency_key: str | None = None
    digest: str = ""
    variables: tuple[VariableSpec, ...] = ()
    nodes: tuple[NodeSpec, ...] = ()
    wanted: tuple[Wanted, ...] = ()
    close: bool = False
    quiet: bool = False
    discovers: bool = False
    is_run: bool = True
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class VariableSet:
    """The client sets an external variable."""

    variable: VariableId
    value: str


@dataclass(frozen=True, slots=True)
class ValueRequested:
    """Somebody waits for a variable; None leaves its criteria as they are."""

    waiter: WaiterId
    variable: VariableId
    criteria: Criteria | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class WaitersLeft:
    """Some no longer wait; with ``cancel``, what only they wanted is given up."""

    waiters: tuple[WaiterId, ...]
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The client gives up some variables of a session, or (None) all unfinished ones."""

    session: SessionId
    variables: tuple[VariableId, ...] | None = None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The client ends a session: every waiter is answered and the session is forgotten."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself when it joins.

    Attributes:
        engine: Id of this incarnation.
        models: Names it serves; the first is its default.
        max_model_len: Longest prompt plus output, in tokens.
        capacity_tokens: KV tokens that running requests may hold together.
        latency_capacity_tokens: The same while a latency-sensitive one runs (paper, section 5.4).
        max_requests: Requests that may run at once.
        keeps_prefixes: It keeps prefixes when told to, takes fills, and reports what it holds.
        takes_updates, splices: Hints of what runs may change; it goes on with staged requests.
        finds_tool_calls: It finds calls of tools in free text.
        block_tokens: Tokens of one KV block; None if it does not tell.
        max_step_tokens: Prompt and output tokens of one step at most; None if it does not tell.
        repeated_read: What a further reader of a prefix pays in a step; the first one pays 1.
    """

    engine: EngineId
    models: tuple[str, ...]
    max_model_len: int
    capacity_tokens: int
    latency_capacity_tokens: int
    max_requests: int
    keeps_prefixes: bool = False
    takes_updates: bool = False
    splices: bool = False
    finds_tool_calls: bool = True
    block_tokens: int | None = None
    max_step_tokens: int | None = None
    repeated_read: float = 1.0


@dataclass(frozen=True, slots=True)
class EngineReported:
    """What an engine says of itself while it runs.

    Attributes:
        held: Prefixes that its cache holds now, with their exact lengths.
        lost: Prefixes that it held before.
        is_snapshot: ``held`` is all that it holds.
        step_time: How long its steps take; None if that is not known yet, or as before.
    """

    engine: EngineId
    held: tuple[PrefixBoundary, ...] = ()
    lost: tuple[bytes, ...] = ()
    is_snapshot: bool = False
    step_time: StepTimeModel | None = None


@dataclass(frozen=True, slots=True)
class EngineJoined:
    """A new incarnation of an engine is ready to serve."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class EngineLost:
    """An engine died, was closed, or cannot be reached."""

    engine: EngineId
    reason: str


@dataclass(frozen=True, slots=True)
class TokensGenerated:
    """More text of a running request, or of the reasoning before it; ``logprobs`` of some of it."""

    attempt: AttemptId
    text: str
    num_tokens: int
    is_reasoning: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """Tokens and time of one finished request.

    ``engine_s`` is the engine's own time from queueing to the last token, ``decode_s`` the part of
    it since the first token; None if unknown.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    engine_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """A running request produced its whole output.

    ``spliced`` are the staged attempts that go on from there by themselves.
    """

    attempt: AttemptId
    text: str
    token_ids: tuple[int, ...] | None
    finish_reason: str
    usage: RequestUsage
    spliced: tuple[AttemptId, ...] = ()
    details: OutputDetails = NO_DETAILS


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A running request failed; ``is_retryable`` when another engine might do it."""

    attempt: AttemptId
    code: str
    message: str
    is_retryable: bool = False


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer asked for by ``SetTimer`` is due."""

    timer: Timer


Event = (
    GraphSubmitted
    | VariableSet
    | ValueRequested
    | WaitersLeft
    | CancelRequested
    | SessionClosed
    | EngineJoined
    | EngineReported
    | EngineLost
    | TokensGenerated
    | RequestFinished
    | RequestFailed
    | TimerFired
)
