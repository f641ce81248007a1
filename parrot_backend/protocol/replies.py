"""Bodies of replies, and the events of a stream."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from parrot_backend.protocol.base import Scalar, WireModel
from parrot_backend.protocol.chat import TokenLogprob, ToolCall


class ErrorBody(WireModel):
    """An error: branch on ``code``; ``message`` is for people."""

    code: str
    message: str
    context: dict[str, Scalar] = Field(default_factory=dict)


class ErrorReply(WireModel):
    """Body of every reply with a status of 400 or more."""

    error: ErrorBody


class FailureView(WireModel):
    """Why a variable has no value: root cause, where it began, and the way it took."""

    code: str
    message: str
    origin: str
    path: tuple[str, ...]


class Usage(WireModel):
    """Tokens of one generated value. ``cached_tokens`` of the prompt came from the KV cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


VariableState = Literal["empty", "generating", "ready", "failed", "cancelled"]


class VariableView(WireModel):
    """One variable as clients see it; ``value`` is set when the state is ``ready``.

    Attributes:
        tool_calls: What the model asks the client to call.
        reasoning: What the model thought before, where the engine tells it apart.
        logprobs: One for each generated token, if they were asked for.
    """

    id: str
    name: str
    state: VariableState
    value: str | None = None
    error: FailureView | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


class SubmitReply(WireModel):
    """Reply of ``POST /v1/submit``: the session and its wanted variables by name."""

    session_id: str
    variables: dict[str, VariableView]


class FoundView(WireModel):
    """What was found in the texts of a call that declares nothing.

    Attributes:
        reads: Variables whose values are in its prompt.
        stage: Longest path from a call that reads nothing.
        stages_to_come: How many are expected to follow.
        template: The same for calls of the same kind.
        value_chars: Characters of its prompt that are of values.
        repeated_chars: Those that stood in earlier prompts, or are of no certain value.
        fresh_chars: The others.
        expected_tokens: What hardly any output of its kind exceeds, if that is known.
        kept_tokens: So many tokens of its prompt (estimated) engines are asked to keep, because
            calls to come are expected to begin with them.
    """

    reads: tuple[str, ...]
    stage: int
    stages_to_come: int = 0
    template: str
    value_chars: int
    repeated_chars: int
    fresh_chars: int
    expected_tokens: int | None = None
    kept_tokens: int = 0


class NodeView(WireModel):
    """One call step or transform with its states in time.

    Times are seconds since the session was opened. ``engine_s`` is the time that the engine itself
    reports for the request, from its queue to its last token. ``stage`` is what the client said;
    ``found.stage`` is a number.
    """

    id: str
    kind: Literal["request", "transform", "map", "branch", "loop"]
    state: Literal["waiting", "ready", "running", "finished", "failed", "cancelled", "pruned"]
    inputs: tuple[str, ...]
    output: str
    model: str | None = None
    stage: str | None = None
    objective: str | None = None
    group: str | None = None
    engine: str | None = None
    attempts: int = 0
    reason: str | None = None
    created_s: float
    ready_s: float | None = None
    placed_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    engine_s: float | None = None
    usage: Usage | None = None
    found: FoundView | None = None


class SessionView(WireModel):
    """``GET /v1/sessions/{id}``: the graph with states and timings."""

    id: str
    app: str
    metadata: dict[str, Scalar]
    state: Literal["open", "closed"]
    age_s: float
    variables: tuple[VariableView, ...]
    nodes: tuple[NodeView, ...]


class ModelView(WireModel):
    """One model as OpenAI's model list shows it, with its context length in tokens."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Unix time at which the server came up")
    owned_by: str = "parrot"
    max_model_len: int | None = None


class ModelList(WireModel):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: tuple[ModelView, ...]


# --- server-sent events of a stream -----------------------------------------------------------


class StreamToken(WireModel):
    """Event ``token``: more text of a variable, or of the reasoning before it."""

    variable: str
    text: str
    kind: Literal["text", "reasoning"] = "text"


class StreamReset(WireModel):
    """Event ``reset``: forget the text so far; the call runs again on another engine."""

    variable: str


# Event ``session`` carries a SubmitReply (states at the start), event ``variable`` a VariableView
# (one per wanted output, when it is settled), event ``done`` an empty object. After ``timeout_s``
# the stream ends with event ``timeout``.
