"""Wire models: the JSON of every request and reply, and the template syntax inside prompts.

This is the one module that the server and its clients share. It imports nothing of ours.

A *prompt string* is a template: ``{{input:x}}`` stands for the value of variable ``x``,
``{{output:y}}`` is where variable ``y`` is generated; everything else is constant text. Text that
must not be read as a template goes into a list of segments instead. All durations are seconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

#: Longest name of a variable or call, in characters.
MAX_NAME_CHARS = 128

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_\-]{0,127}$")]

Scalar = str | int | float | bool | None


class WireModel(BaseModel):
    """Base of all wire models: unknown fields are errors, not silently dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- transforms -----------------------------------------------------------------------------


class StripTransform(WireModel):
    """Remove white space at both ends."""

    op: Literal["strip"] = "strip"


class HtmlEscapeTransform(WireModel):
    """Escape HTML."""

    op: Literal["html_escape"] = "html_escape"


class HtmlUnescapeTransform(WireModel):
    """Undo HTML escapes."""

    op: Literal["html_unescape"] = "html_unescape"


class RegexGroupTransform(WireModel):
    """Take one group of the first match of an RE2 pattern."""

    op: Literal["regex_group"] = "regex_group"
    pattern: str
    group: int = Field(default=0, ge=0)


class JsonFieldTransform(WireModel):
    """Parse as JSON and walk a dotted path."""

    op: Literal["json_field"] = "json_field"
    path: str = Field(min_length=1)


class SplitTransform(WireModel):
    """Split at a separator and take one piece."""

    op: Literal["split"] = "split"
    separator: str = Field(min_length=1)
    index: int


class FormatTransform(WireModel):
    """Put the value in the place of ``{}`` in a template."""

    op: Literal["format"] = "format"
    template: str


WireTransform = Annotated[
    StripTransform
    | HtmlEscapeTransform
    | HtmlUnescapeTransform
    | RegexGroupTransform
    | JsonFieldTransform
    | SplitTransform
    | FormatTransform,
    Field(discriminator="op"),
]


# --- prompts --------------------------------------------------------------------------------


class Sampling(WireModel):
    """Sampling parameters of one output; the names and meanings are vLLM's."""

    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0 means all")
    min_p: float = Field(default=0.0, ge=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), max_length=16)
    min_tokens: int = Field(default=0, ge=0)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, gt=0, le=2)
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens is greater than max_tokens")
        return self


class TextSegment(WireModel):
    """Constant text, taken literally."""

    type: Literal["text"] = "text"
    text: str


class InputSegment(WireModel):
    """The value of a variable, after its transforms in order."""

    type: Literal["input"] = "input"
    variable: Name
    transforms: tuple[WireTransform, ...] = ()


class OutputSegment(WireModel):
    """The place where a variable is generated; ``sampling`` None takes the call's."""

    type: Literal["output"] = "output"
    variable: Name
    sampling: Sampling | None = None


WireSegment = Annotated[TextSegment | InputSegment | OutputSegment, Field(discriminator="type")]

#: A template string, or segments.
PromptContent = str | tuple[WireSegment, ...]


class Message(WireModel):
    """One chat message. An output may stand only in the last one, which must be the assistant's."""

    role: Literal["system", "user", "assistant"]
    content: PromptContent


class CallNode(WireModel):
    """One call of a model: a raw ``prompt`` or chat ``messages``, with one or more outputs.

    Several outputs in one prompt are generated in order, each with everything before it as context.
    """

    kind: Literal["call"] = "call"
    name: Name
    prompt: PromptContent | None = None
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    sampling: Sampling = Sampling()
    model: str | None = Field(default=None, description="None takes the server's default model")

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class TransformNode(WireModel):
    """A text computed on the server: segments in order, then transforms."""

    kind: Literal["transform"] = "transform"
    name: Name
    content: PromptContent
    transforms: tuple[WireTransform, ...] = ()
    output: Name


WireNode = Annotated[CallNode | TransformNode, Field(discriminator="kind")]


# --- submit ---------------------------------------------------------------------------------


class WireCriteria(WireModel):
    """What the user wants of a value; a target makes it latency-sensitive."""

    kind: Literal["latency", "throughput"] = "latency"
    deadline_s: float | None = Field(default=None, gt=0, description="from the submit")
    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)


class VariableDeclaration(WireModel):
    """An external variable: with a value now, or without one to be set later."""

    name: Name
    value: str | None = None


class WantedOutput(WireModel):
    """A variable whose value the user will get."""

    variable: Name
    criteria: WireCriteria = WireCriteria()


class SubmitRequest(WireModel):
    """A whole program graph, or more calls for a live session.

    Attributes:
        session_id: None opens a new session.
        app: Name of the application, for people and for metrics.
        metadata: Free labels of the session.
        idempotency_key: A repeat with the same key and body finds the first one's session.
        variables: External variables.
        nodes: Calls and transforms in any order.
        outputs: Which values are wanted and how urgently.
        wait: Answer when all wanted outputs are settled; False answers at once.
        stream: Answer as server-sent events while the outputs are generated.
        timeout_s: Longest wait; what is settled by then is returned.
        close: Nothing will be added or set afterwards; an external variable without a value is
            then an error.
        on_disconnect: What happens to unfinished work when the waiting client goes away.
    """

    session_id: str | None = None
    app: str = Field(default="", max_length=MAX_NAME_CHARS)
    metadata: dict[str, Scalar] = Field(default_factory=dict, max_length=64)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=MAX_NAME_CHARS)
    variables: tuple[VariableDeclaration, ...] = ()
    nodes: tuple[WireNode, ...] = ()
    outputs: tuple[WantedOutput, ...] = ()
    wait: bool = True
    stream: bool = False
    timeout_s: float | None = Field(default=None, gt=0)
    close: bool = False
    on_disconnect: Literal["continue", "cancel"] = "continue"


class SetVariableRequest(WireModel):
    """Body of ``PUT /v1/variables/{id}``."""

    value: str


class CancelRequest(WireModel):
    """Body of ``POST /v1/sessions/{id}/cancel``; None cancels everything unfinished."""

    variables: tuple[Name, ...] | None = None


# --- replies --------------------------------------------------------------------------------


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
    """One variable as clients see it; ``value`` is set when the state is ``ready``."""

    id: str
    name: str
    state: VariableState
    value: str | None = None
    error: FailureView | None = None
    usage: Usage | None = None
    finish_reason: str | None = None


class SubmitReply(WireModel):
    """Reply of ``POST /v1/submit``: the session and its wanted variables by name."""

    session_id: str
    variables: dict[str, VariableView]


class NodeView(WireModel):
    """One call step or transform with its states in time.

    Times are seconds since the session was opened. ``engine_s`` is the time that the engine itself
    reports for the request, from its queue to its last token.
    """

    id: str
    kind: Literal["request", "transform"]
    state: Literal["waiting", "ready", "running", "finished", "failed", "cancelled"]
    inputs: tuple[str, ...]
    output: str
    model: str | None = None
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
    owned_by: str = "parrot"
    max_model_len: int | None = None


class ModelList(WireModel):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: tuple[ModelView, ...]


# --- server-sent events of a stream -----------------------------------------------------------


class StreamToken(WireModel):
    """Event ``token``: more text of a variable."""

    variable: str
    text: str


class StreamReset(WireModel):
    """Event ``reset``: forget the text so far; the call runs again on another engine."""

    variable: str


# Event ``session`` carries a SubmitReply (states at the start), event ``variable`` a VariableView
# (one per wanted output, when it is settled), event ``done`` an empty object. After ``timeout_s``
# the stream ends with event ``timeout``.


# --- template syntax --------------------------------------------------------------------------

# Each class excludes what follows it, so that no text makes the search backtrack.
_PLACEHOLDER = re.compile(r"\{\{(?P<kind>[^{}:]*):(?P<name>[^{}]*)\}\}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,127}\Z")


class TemplateError(ValueError):
    """A template that cannot be read.

    Attributes:
        code: ``template_syntax`` or ``unknown_placeholder``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_template(template: str) -> tuple[TextSegment | InputSegment | OutputSegment, ...]:
    """Split a template into segments; the names are the placeholders' own.

    Text between placeholders is kept to the letter; empty text gives no segment. Double braces
    that hold no ``kind:`` (a word and a colon) are ordinary text, so JSON needs no escaping.

    Raises:
        TemplateError: An unknown kind of placeholder, or a name that is not a name.
    """
    segments: list[TextSegment | InputSegment | OutputSegment] = []
    position = 0
    for match in _PLACEHOLDER.finditer(template):
        kind, name = match["kind"].strip(), match["name"].strip()
        if not kind.isidentifier():
            continue
        if kind not in ("input", "output"):
            raise TemplateError(
                "unknown_placeholder",
                f"placeholder {match[0]!r}: use {{{{input:name}}}} or {{{{output:name}}}}",
            )
        if not _NAME.match(name):
            raise TemplateError("template_syntax", f"placeholder {match[0]!r}: not a valid name")
        if match.start() > position:
            segments.append(TextSegment(text=template[position : match.start()]))
        segments.append(
            InputSegment(variable=name) if kind == "input" else OutputSegment(variable=name)
        )
        position = match.end()
    if position < len(template):
        segments.append(TextSegment(text=template[position:]))
    return tuple(segments)
