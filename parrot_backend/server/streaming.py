"""Replies as server-sent events.

``session`` comes first, then ``token``, ``reset`` and ``variable`` as they happen, and ``done`` or
``timeout`` at the end. The data of each event is a wire model (see ``protocol``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Literal

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from parrot_backend import protocol as wire
from parrot_backend.core.commands import AnswerWaiter, StreamText
from parrot_backend.server.service import Service
from parrot_backend.server.views import answer_to_view
from parrot_backend.server.waiting import Inbox, Message

logger = logging.getLogger(__name__)


class InboxStream(EventSourceResponse):
    """Streams an inbox until all in it are answered, time is up, or the client leaves.

    Args:
        service: Whose waiters these are; they leave when the stream ends, however it ends.
        inbox: What to stream.
        first: States at the start.
        timeout_s: Longest duration of the stream.
        cancel_on_disconnect: Give up what only this client wanted when it goes away.
    """

    def __init__(
        self,
        service: Service,
        inbox: Inbox,
        first: wire.SubmitReply,
        timeout_s: float,
        *,
        cancel_on_disconnect: bool,
    ) -> None:
        super().__init__(
            self._events(first, timeout_s),
            ping=service.settings.stream_ping_s,
            send_timeout=service.settings.stream_send_timeout_s,
        )
        self._runtime = service.runtime
        self._inbox = inbox
        self._cancel_on_disconnect = cancel_on_disconnect
        self._is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; whatever happens, no waiter stays behind."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("a stream was dropped: its client takes nothing any more")
        finally:
            is_abandoned = not self._is_over
            self._runtime.leave(self._inbox, cancel=is_abandoned and self._cancel_on_disconnect)

    async def _events(
        self, first: wire.SubmitReply, timeout_s: float
    ) -> AsyncIterator[ServerSentEvent]:
        end_s = asyncio.get_running_loop().time() + timeout_s
        yield _event("session", first)
        try:
            while (item := await self._next(end_s)) is not None:
                yield _message_event(*item)
        except TimeoutError:
            self._is_over = True
            self._runtime.leave(self._inbox)
            yield ServerSentEvent("{}", event="timeout")
            return
        self._is_over = True
        yield ServerSentEvent("{}", event="done")

    async def _next(self, end_s: float) -> tuple[str, Message] | None:
        async with asyncio.timeout_at(end_s):
            return await self._inbox.next()


def _message_event(name: str, message: Message) -> ServerSentEvent:
    if isinstance(message, StreamText):
        kind: Literal["text", "reasoning"] = "reasoning" if message.is_reasoning else "text"
        return _event("token", wire.StreamToken(variable=name, text=message.text, kind=kind))
    if isinstance(message, AnswerWaiter):
        return _event("variable", answer_to_view(message))
    return _event("reset", wire.StreamReset(variable=name))


def _event(name: str, data: wire.WireModel) -> ServerSentEvent:
    return ServerSentEvent(data.model_dump_json(), event=name)
