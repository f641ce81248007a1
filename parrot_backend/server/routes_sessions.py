"""Routes of programs and sessions: submit, look, cancel, delete, timeline."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from parrot_backend import protocol as wire
from parrot_backend.metrics.timeline import session_to_trace
from parrot_backend.server.http_io import (
    ERROR_REPLIES,
    STREAM_REPLY,
    ServiceDependency,
    StrictJsonRoute,
    json_reply,
    wait_for_answers,
)
from parrot_backend.server.ownership import OwnSession, Tenant
from parrot_backend.server.streaming import InboxStream
from parrot_backend.server.views import session_to_view
from parrot_backend.server.waiting import Inbox

router = APIRouter(responses=ERROR_REPLIES, tags=["sessions"], route_class=StrictJsonRoute)


@router.post("/submit", response_model=wire.SubmitReply, responses=STREAM_REPLY)
async def submit(
    body: wire.SubmitRequest, request: Request, tenant: Tenant, service: ServiceDependency
) -> Response:
    """Submit a whole program graph; answer with the wanted values, or stream them."""
    inbox = Inbox()
    names = [output.variable for output in body.outputs]
    session = service.submit(body, inbox, tenant=tenant)
    cancels = body.on_disconnect == "cancel"
    if body.stream:
        return InboxStream(
            service,
            inbox,
            wire.SubmitReply(session_id=session, variables=service.views(session, names)),
            service.wait_limit_s(body.timeout_s),
            cancel_on_disconnect=cancels,
        )
    await wait_for_answers(service, inbox, request, body.timeout_s, cancel_on_disconnect=cancels)
    variables = service.views(session, names, inbox.answers)
    return json_reply(wire.SubmitReply(session_id=session, variables=variables))


@router.get("/sessions/{session_id}", response_model=wire.SessionView)
async def get_session(session_id: OwnSession, service: ServiceDependency) -> Response:
    """Return a session's graph with states and timings."""
    session = service.coordinator.session(session_id)
    return json_reply(session_to_view(session, service.clock.now_s()))


@router.delete("/sessions/{session_id}", status_code=204)
async def delete_session(session_id: OwnSession, service: ServiceDependency) -> Response:
    """End a session: cancel what is unfinished, answer every waiter, forget all values.

    One that OpenAI calls share for their words alone lets those go on that requests wait for.
    """
    service.end_session(session_id)
    return Response(status_code=204)


@router.post("/sessions/{session_id}/cancel", status_code=204)
async def cancel(
    session_id: OwnSession, service: ServiceDependency, body: wire.CancelRequest | None = None
) -> Response:
    """Give up some variables of a session, or all unfinished ones."""
    service.cancel(session_id, None if body is None else body.variables)
    return Response(status_code=204)


@router.get("/sessions/{session_id}/timeline", response_model=dict[str, Any])
async def get_timeline(session_id: OwnSession, service: ServiceDependency) -> Response:
    """Return what ran when, as Chrome trace events; https://ui.perfetto.dev opens it."""
    session = service.coordinator.session(session_id)
    trace = session_to_trace(session, service.clock.now_s())
    return Response(json.dumps(trace), media_type="application/json")
