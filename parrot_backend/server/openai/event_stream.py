"""Streams of OpenAI's API: an inbox in, server-sent events out as fast as they come.

The head of the reply waits for the first word, so that what is refused gets a proper error status;
after a while of silence it is sent anyway, with a comment that keeps the connection open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from parrot_backend.core.commands import AnswerWaiter, ResetStream
from parrot_backend.errors import EngineError, ParrotError
from parrot_backend.server.http_io import watch_client
from parrot_backend.server.openai.errors import body_of, raise_failure, timed_out
from parrot_backend.server.openai.reply import Writer
from parrot_backend.server.service import Service
from parrot_backend.server.waiting import Inbox, Message

logger = logging.getLogger(__name__)

_PING = ": ping\n\n"


class _TakesNothing(Exception):  # noqa: N818 - a fact about the client
    """The client does not read what it is sent."""


class EventStream(Response):
    """Streams what arrives in an inbox.

    Args:
        service: Whose waiters these are; they leave when the stream ends, however it ends. If the
            client went away, what it waited for is given up.
        inbox: What to stream.
        names: The variables, one for each choice.
        writer: Writes the events.
        headers: Headers of the reply.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        service: Service,
        inbox: Inbox,
        names: Sequence[str],
        writer: Writer,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", **headers})
        # The length is not known.
        del self.headers["content-length"]
        self._service = service
        self._inbox = inbox
        self._names = names
        self._choice_of = {name: number for number, name in enumerate(names)}
        self._writer = writer
        self._has_begun = False
        self._has_told = False
        self._is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; whatever happens, no waiter stays behind.

        Raises:
            ParrotError: The call failed before anything was sent.
        """
        watcher = asyncio.create_task(watch_client(Request(scope, receive), self._inbox))
        try:
            await self._send_all(send)
        except _TakesNothing:
            logger.info("a stream was dropped: its client takes nothing any more")
        finally:
            watcher.cancel()
            self._service.runtime.leave(self._inbox, cancel=not self._is_over)

    async def _send_all(self, send: Send) -> None:
        inbox = self._inbox
        try:
            async with asyncio.timeout(self._service.wait_limit_s(None)):
                while (events := await self._next()) is not None:
                    if events:
                        await self._send(send, events)
        except TimeoutError:
            await self._fail(send, timed_out())
        except ParrotError as exc:
            await self._fail(send, exc)
        else:
            if not inbox.has_client_left:
                answers = [inbox.answers[name] for name in self._names]
                await self._send(send, self._writer.end(answers), is_last=True)
                self._is_over = True

    async def _fail(self, send: Send, error: ParrotError) -> None:
        if not self._has_begun:
            raise error
        await self._send(send, self._writer.error(body_of(error)), is_last=True)

    async def _next(self) -> str | None:
        """Return what there is to send next, None at the end.

        Raises:
            ParrotError: The stream cannot go on.
        """
        inbox = self._inbox
        try:
            async with asyncio.timeout(self._service.settings.stream_ping_s):
                item = await inbox.next()
        except TimeoutError:
            return _PING
        if item is None:
            return None
        events = self._events(*item)
        while inbox.has_messages and (item := await inbox.next()) is not None:
            events += self._events(*item)
        return events

    def _events(self, name: str, message: Message) -> str:
        """Return the events of a message.

        Raises:
            ParrotError: The stream cannot go on.
        """
        if isinstance(message, ResetStream):
            if self._has_told:
                # What was sent cannot be taken back, and the new text may differ.
                raise EngineError("engine_lost", "the engine was lost in the middle of the output")
            return ""
        if isinstance(message, AnswerWaiter):
            raise_failure(message)
        begin = "" if self._has_told else self._writer.begin()
        self._has_told = True
        choice = self._choice_of[name]
        if isinstance(message, AnswerWaiter):
            return begin + self._writer.answer(choice, message)
        return begin + self._writer.text(choice, message)

    async def _send(self, send: Send, events: str, *, is_last: bool = False) -> None:
        if not self._has_begun:
            self._has_begun = True
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
        body = {"body": events.encode(), "more_body": not is_last}
        try:
            async with asyncio.timeout(self._service.settings.stream_send_timeout_s):
                await send({"type": "http.response.body", **body})
        except TimeoutError as exc:
            raise _TakesNothing from exc
