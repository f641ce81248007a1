"""Routes of semantic variables: get, with waiting and streaming, and set."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from parrot_backend import protocol as wire
from parrot_backend.core.criteria import Criteria
from parrot_backend.core.events import VariableSet
from parrot_backend.core.ids import name_of, session_of
from parrot_backend.server.convert import criteria_to_core
from parrot_backend.server.http_io import (
    ERROR_REPLIES,
    STREAM_REPLY,
    ServiceDependency,
    StrictJsonRoute,
    json_reply,
    wait_for_answers,
)
from parrot_backend.server.ownership import OwnVariable
from parrot_backend.server.streaming import InboxStream
from parrot_backend.server.waiting import Inbox

router = APIRouter(responses=ERROR_REPLIES, tags=["variables"], route_class=StrictJsonRoute)


class GetOptions(BaseModel):
    """Query of ``GET /v1/variables/{id}``.

    Attributes:
        wait: Answer when the variable is settled; without it, answer at once.
        stream: Answer as server-sent events while it is generated.
        timeout_s: Longest wait.
        criteria: What the user wants of the value; None leaves earlier criteria as they are.
        deadline_s: The value is wanted within this time from now.
        ttft_s: Target for the time to the first token.
        tpot_s: Target for the time per output token.
    """

    model_config = ConfigDict(extra="forbid")

    wait: bool = False
    stream: bool = False
    timeout_s: float | None = Field(default=None, gt=0)
    criteria: Literal["unstated", "latency", "throughput"] | None = None
    deadline_s: float | None = Field(default=None, gt=0)
    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)

    def core_criteria(self, now_s: float) -> Criteria | None:
        """Return the criteria, or None when the query says nothing of them."""
        targets = {"deadline_s": self.deadline_s, "ttft_s": self.ttft_s, "tpot_s": self.tpot_s}
        if self.criteria is None and not any(targets.values()):
            return None
        kind = self.criteria or "latency"
        return criteria_to_core(wire.WireCriteria(kind=kind, **targets), now_s)


@router.get("/variables/{variable_id}", response_model=wire.VariableView, responses=STREAM_REPLY)
async def get_variable(
    variable_id: OwnVariable,
    options: Annotated[GetOptions, Query()],
    request: Request,
    service: ServiceDependency,
) -> Response:
    """Return a variable: as it is, or when it is settled, or as a stream."""
    criteria = options.core_criteria(service.clock.now_s())
    inbox = Inbox()
    if options.wait or options.stream or criteria is not None:
        service.request_value(variable_id, criteria, inbox, stream=options.stream)
    if options.stream:
        states = {name_of(variable_id): service.view(variable_id)}
        return InboxStream(
            service,
            inbox,
            wire.SubmitReply(session_id=session_of(variable_id), variables=states),
            service.wait_limit_s(options.timeout_s),
            cancel_on_disconnect=False,
        )
    if options.wait:
        await wait_for_answers(service, inbox, request, options.timeout_s)
    service.runtime.leave(inbox)
    return json_reply(service.view(variable_id, inbox.answers))


@router.put("/variables/{variable_id}", response_model=wire.VariableView)
async def set_variable(
    variable_id: OwnVariable, body: wire.SetVariableRequest, service: ServiceDependency
) -> Response:
    """Set an external variable, once."""
    service.runtime.dispatch(VariableSet(variable_id, body.value))
    return json_reply(service.view(variable_id))
