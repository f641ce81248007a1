"""What arrives for the waiters of one HTTP request.

The runtime puts answers and stream text into an inbox; the request's coroutine takes them out. An
inbox lives on one event loop and decides nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque

from parrot_backend.core.commands import AnswerWaiter, ResetStream, StreamText
from parrot_backend.core.ids import WaiterId, name_of

#: What the core sends to a waiter.
Message = AnswerWaiter | StreamText | ResetStream


class Inbox:
    """Messages for the waiters of one HTTP request.

    Attributes:
        open: Waiters without an answer, with the name of the variable each waits for.
        answers: Answers so far, by name.
        has_client_left: The client is gone; nobody will read any more.
    """

    def __init__(self) -> None:
        self.open: dict[WaiterId, str] = {}
        self.answers: dict[str, AnswerWaiter] = {}
        self.has_client_left = False
        self._messages: deque[tuple[str, Message]] = deque()
        self._arrived = asyncio.Event()

    def put(self, message: Message) -> None:
        """Take in a message for one of the open waiters."""
        name = self.open[message.waiter]
        if isinstance(message, AnswerWaiter):
            del self.open[message.waiter]
            self.answers[name_of(message.variable)] = message
        self._messages.append((name, message))
        self._arrived.set()

    def hang_up(self) -> None:
        """Note that the client is gone, and wake whoever waits here."""
        self.has_client_left = True
        self._arrived.set()

    async def all_answered(self) -> None:
        """Return when every waiter has its answer or the client is gone."""
        while self.open and not self.has_client_left:
            await self._arrived.wait()
            self._arrived.clear()

    async def next(self) -> tuple[str, Message] | None:
        """Return the next message with its variable's name; None when no more can come."""
        while (item := self.take()) is None and not self.is_over:
            await self.changed()
        return item

    def take(self) -> tuple[str, Message] | None:
        """Return the next message with its variable's name, None if there is none now."""
        return self._messages.popleft() if self._messages else None

    @property
    def is_over(self) -> bool:
        """Whether no more messages can come, or nobody would read them."""
        return self.has_client_left or not (self.open or self._messages)

    async def changed(self) -> None:
        """Return when something has been put in since the last time, or by ``wake``."""
        await self._arrived.wait()
        self._arrived.clear()

    def wake(self) -> None:
        """Let whoever waits for a change look again."""
        self._arrived.set()
