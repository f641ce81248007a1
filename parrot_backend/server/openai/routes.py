"""Routes of OpenAI's API: they parse, submit, and write replies; they decide nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from parrot_backend import protocol as wire
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.ids import SessionId, variable_id
from parrot_backend.errors import RequestError
from parrot_backend.server.authentication import tenant_of
from parrot_backend.server.http_io import json_reply, watch_client
from parrot_backend.server.openai.base import parse_request
from parrot_backend.server.openai.chat import ChatRequest, chat_to_calls
from parrot_backend.server.openai.chat_reply import ChatReply
from parrot_backend.server.openai.completion_reply import CompletionReply
from parrot_backend.server.openai.completions import (
    CompletionRequest,
    completions_to_calls,
    prompts_of,
)
from parrot_backend.server.openai.errors import Fields, raise_failure, timed_out
from parrot_backend.server.openai.event_stream import EventStream
from parrot_backend.server.openai.hints import hints_of
from parrot_backend.server.openai.placing import CallPlacer
from parrot_backend.server.openai.reply import Head, Writer
from parrot_backend.server.openai.response_reply import ResponseHead
from parrot_backend.server.openai.response_stream import ResponseReply
from parrot_backend.server.openai.responses import ResponseRequest, response_to_call
from parrot_backend.server.openai.sampling import SamplingFields
from parrot_backend.server.service import Service
from parrot_backend.server.views import engines_to_models
from parrot_backend.server.waiting import Inbox

_NOBODY_READS = 499


class _DirectRoute(APIRoute):
    """A route whose function gets the request itself: bodies are parsed once, by their models."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


class _Reply(Writer, Protocol):
    """Writes a whole reply, too."""

    def whole(self, answers: Sequence[AnswerWaiter]) -> dict[str, Any]:
        """Return the body of a reply."""
        ...


router = APIRouter(route_class=_DirectRoute, tags=["openai"])


@router.post("/chat/completions")
async def create_chat_completion(request: Request) -> Response:
    """Answer a chat."""
    body = parse_request(ChatRequest, await request.body())
    calls = chat_to_calls(body)

    def reply(head: Head) -> ChatReply:
        return ChatReply(
            head,
            len(calls),
            includes_usage=body.includes_usage,
            names_tool=body.names_tool,
            includes_reasoning=body.include_reasoning is not False,
        )

    return await _answer(request, body, calls, "chatcmpl", "messages", reply)


@router.post("/completions")
async def create_completion(request: Request) -> Response:
    """Go on with one prompt or several."""
    body = parse_request(CompletionRequest, await request.body())
    prompts = prompts_of(body)
    echoes = prompts if body.echo else ()

    def reply(head: Head) -> CompletionReply:
        return CompletionReply(head, echoes, body.num_choices, includes_usage=body.includes_usage)

    return await _answer(
        request, body, completions_to_calls(body, prompts), "cmpl", "prompt", reply
    )


@router.post("/responses")
async def create_response(request: Request) -> Response:
    """Answer a conversation."""
    body = parse_request(ResponseRequest, await request.body())
    call = response_to_call(body)

    def reply(head: Head) -> ResponseReply:
        return ResponseReply(ResponseHead(head.id, head.created_s, head.model, body))

    return await _answer(request, body, (call,), "", "input", reply)


@router.get("/models")
async def list_models(request: Request) -> Response:
    """Return the models that live engines serve."""
    return json_reply(_models(request.app.state.service))


@router.get("/models/{model_id:path}")
async def get_model(request: Request) -> Response:
    """Return one model."""
    model_id = request.path_params["model_id"]
    for model in _models(request.app.state.service).data:
        if model.id == model_id:
            return json_reply(model)
    raise RequestError("unknown_model", f"the model {model_id!r} does not exist")


def _models(service: Service) -> wire.ModelList:
    engines = service.coordinator.engines.values()
    return engines_to_models((engine.info for engine in engines), service.started_unix_s)


async def _answer(
    request: Request,
    body: SamplingFields,
    calls: Sequence[wire.CallNode],
    prefix: str,
    prompt_field: str,
    reply_of: Callable[[Head], _Reply],
) -> Response:
    """Run the calls of a request and return the reply, whole or as a stream."""
    service: Service = request.app.state.service
    hints = hints_of(body.parrot, request.headers, user=body.user, session_id=body.session_id)
    inbox = Inbox()
    placer: CallPlacer = request.app.state.placer
    fields = Fields(prompt_field, body.form_field)
    try:
        placed = placer.submit(
            calls, hints, inbox, stream=bool(body.stream), tenant=tenant_of(request)
        )
    except RequestError as exc:
        fields.name_form(exc)
        raise
    names = placed.names
    reply = reply_of(_head(service, body.model, prefix, placed.session, names[0]))
    headers = {"x-parrot-session-id": placed.session}

    def end() -> None:
        placer.end(placed, inbox.answers.values())

    if body.stream:
        return EventStream(service, inbox, names, reply, fields, headers, end)
    try:
        await _answered(service, inbox, request)
    finally:
        end()
    if inbox.has_client_left:
        return Response(status_code=_NOBODY_READS)
    answers = [inbox.answers[name] for name in names]
    for answer in answers:
        raise_failure(answer, fields, is_stopping=service.is_draining)
    content = to_json(reply.whole(answers))
    return Response(content, media_type="application/json", headers=headers)


async def _answered(service: Service, inbox: Inbox, request: Request) -> None:
    """Return when all is answered, or the client has left; what goes on then is given up.

    Raises:
        ParrotError: A call failed, or took too long.
    """
    watcher = asyncio.create_task(watch_client(request, inbox))
    try:
        async with asyncio.timeout(service.wait_limit_s(None)):
            await inbox.all_answered()
    except TimeoutError as exc:
        raise timed_out() from exc
    finally:
        watcher.cancel()
        service.runtime.leave(inbox, cancel=True)


def _head(service: Service, model: str | None, prefix: str, session: SessionId, name: str) -> Head:
    if model is None:
        engines = service.coordinator.engines.values()
        model = next((engine.info.models[0] for engine in engines), "default")
    variable = variable_id(session, name)
    return Head(f"{prefix}-{variable}" if prefix else variable, int(time.time()), model)
