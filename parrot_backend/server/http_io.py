"""What routes share: finding the service, reading strict JSON, replying, waiting for answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, cast

from fastapi import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from parrot_backend import protocol as wire
from parrot_backend.server.service import Service
from parrot_backend.server.waiting import Inbox

#: For OpenAPI: every reply of 400 or more has this body.
ERROR_REPLIES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": wire.ErrorReply},
    "5XX": {"model": wire.ErrorReply},
    422: {"model": wire.ErrorReply},
}

#: For OpenAPI: a reply that may be a stream of server-sent events.
STREAM_REPLY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


async def _service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceDependency = Annotated[Service, Depends(_service_of)]


def json_reply(model: BaseModel) -> Response:
    """Return a model as a reply, serialised once and not validated again."""
    return Response(model.model_dump_json(), media_type="application/json")


class _StrictJsonRequest(Request):
    """Reads JSON to the letter of the standard, so that every text is valid Unicode."""

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as exc:
            raise HTTPException(400, f"the body is not JSON: {exc}") from exc


class StrictJsonRoute(APIRoute):
    """A route that refuses NaN, lone surrogates and absurdly deep nesting in its body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the usual handler, on requests that read strictly."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictJsonRequest(request.scope, request.receive))

        return handle


async def wait_for_answers(
    service: Service,
    inbox: Inbox,
    request: Request,
    timeout_s: float | None,
    *,
    cancel_on_disconnect: bool = False,
) -> None:
    """Return when all waiters are answered, time is up, or the client has left.

    Afterwards nobody waits any more.
    """
    if not inbox.open:
        return
    watcher = asyncio.create_task(watch_client(request, inbox))
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(service.wait_limit_s(timeout_s)):
                await inbox.all_answered()
    finally:
        watcher.cancel()
        service.runtime.leave(inbox, cancel=inbox.has_client_left and cancel_on_disconnect)


async def watch_client(request: Request, inbox: Inbox) -> None:
    """Tell an inbox when the client of a request is gone."""
    # The body has been read, so the next message is that the client is gone.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    inbox.hang_up()
