"""Bodies of requests."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from parrot_backend.protocol.base import MAX_NAME_CHARS, Name, Reference, Scalar, WireModel
from parrot_backend.protocol.nodes import WireNode


class WireCriteria(WireModel):
    """What the user wants of a value; a target makes it latency-sensitive.

    Attributes:
        kind: What is ``unstated`` is served like latency, as many together as fit.
    """

    kind: Literal["unstated", "latency", "throughput"] = "unstated"
    deadline_s: float | None = Field(default=None, gt=0, description="from the submit")
    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)


class VariableDeclaration(WireModel):
    """An external variable: with a value now, or without one to be set later."""

    name: Name
    value: str | None = None


class WantedOutput(WireModel):
    """A variable whose value the user will get.

    Attributes:
        criteria: How urgent it is; None only reports it, and says nothing of urgency.
        tokens: Whether a stream tells the text while it is generated, or only the value.
        instances: The variable is the output of a control node: the stream also reports what calls
            make in instances of its bodies, as soon as there are any.
    """

    variable: Reference
    criteria: WireCriteria | None = WireCriteria()
    tokens: bool = True
    instances: bool = False


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

    @model_validator(mode="after")
    def _instances_are_streamed(self) -> Self:
        if not self.stream and any(output.instances for output in self.outputs):
            raise ValueError("instances are reported by streams only")
        return self


class SetVariableRequest(WireModel):
    """Body of ``PUT /v1/variables/{id}``."""

    value: str


class CancelRequest(WireModel):
    """Body of ``POST /v1/sessions/{id}/cancel``; None cancels everything unfinished."""

    variables: tuple[Reference, ...] | None = None
