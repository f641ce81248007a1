"""Streams of OpenAI's API: an inbox in, server-sent events out as fast as they come.

The head of the reply waits for the first word, so that what is refused gets a proper error status;
after a while of silence it is sent anyway, with a comment that keeps the connection open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from parrot_backend.core.commands import AnswerWaiter, ResetStream
from parrot_backend.errors import EngineError, ParrotError
from parrot_backend.server.http_io import watch_client
from parrot_backend.server.openai.errors import Fields, body_of, raise_failure
from parrot_backend.server.openai.pulse import Pulse
from parrot_backend.server.openai.reply import Writer
from parrot_backend.server.service import Service
from parrot_backend.server.waiting import Inbox, Message

logger = logging.getLogger(__name__)

_PING = ": ping\n\n"


class EventStream(Response):
    """Streams what arrives in an inbox.

    Args:
        service: Whose waiters these are; they leave when the stream ends, however it ends. If the
            client went away, what it waited for is given up.
        inbox: What to stream.
        names: The variables, one for each choice.
        writer: Writes the events.
        fields: The fields of the request that may be named in errors.
        headers: Headers of the reply.
        end: Called when the stream is over.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        service: Service,
        inbox: Inbox,
        names: Sequence[str],
        writer: Writer,
        fields: Fields,
        headers: Mapping[str, str],
        end: Callable[[], None],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", **headers})
        # The length is not known.
        del self.headers["content-length"]
        self._service = service
        self._inbox = inbox
        self._names = names
        self._choice_of = {name: number for number, name in enumerate(names)}
        self._writer = writer
        self._fields = fields
        settings = service.settings
        self._pulse = Pulse(
            inbox.wake,
            ping_s=settings.stream_ping_s,
            send_timeout_s=settings.stream_send_timeout_s,
            limit_s=service.wait_limit_s(None),
        )
        self._end = end
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
        except TimeoutError:
            logger.info("a stream was dropped: its client takes nothing any more")
        finally:
            watcher.cancel()
            self._service.runtime.leave(self._inbox, cancel=not self._is_over)
            self._end()

    async def _send_all(self, send: Send) -> None:
        pulse = self._pulse
        inbox = self._inbox
        try:
            async with pulse.watching():
                while not inbox.is_over:
                    await inbox.changed()
                    pulse.check()
                    events = self._events() or (_PING if pulse.is_silent else "")
                    if events:
                        await self._send(send, events)
                if not inbox.has_client_left:
                    answers = [inbox.answers[name] for name in self._names]
                    await self._send(send, self._writer.end(answers), is_last=True)
                    self._is_over = True
        except ParrotError as exc:
            if not self._has_begun:
                raise
            async with pulse.watching():
                await self._send(send, self._writer.error(body_of(exc)), is_last=True)

    def _events(self) -> str:
        """Return the events of all messages that are there.

        Raises:
            ParrotError: The stream cannot go on.
        """
        events = ""
        while (item := self._inbox.take()) is not None:
            events += self._event(*item)
        return events

    def _event(self, name: str, message: Message) -> str:
        if isinstance(message, ResetStream):
            if self._has_told:
                # What was sent cannot be taken back, and the new text may differ.
                raise EngineError("engine_lost", "the engine was lost in the middle of the output")
            return ""
        if isinstance(message, AnswerWaiter):
            raise_failure(message, self._fields, is_stopping=self._service.is_draining)
        begin = "" if self._has_told else self._writer.begin()
        self._has_told = True
        choice = self._choice_of[name]
        if isinstance(message, AnswerWaiter):
            return begin + self._writer.answer(choice, message)
        return begin + self._writer.text(choice, message)

    async def _send(self, send: Send, events: str, *, is_last: bool = False) -> None:
        self._pulse.begin_send()
        if not self._has_begun:
            self._has_begun = True
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
        body = {"body": events.encode(), "more_body": not is_last}
        await send({"type": "http.response.body", **body})
        self._pulse.end_send()
