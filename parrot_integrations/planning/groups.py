"""Several calls at once: few submits, a bounded number of them in flight, one reply for each call.

Nothing is sent before the first reply is read; then everything is. Whoever reads decides how: with
threads (``result``) or in the running event loop (``aresult``), but one group only in one way.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from parrot_backend.protocol import VariableView
from parrot_integrations.errors import ParrotError
from parrot_integrations.planning import submits
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.reply import ReplyEvent, ReplyText
from parrot_integrations.planning.submits import Outcome, Terms

#: Submits of one group in flight.
MAX_IN_FLIGHT = 8


class CallGroup:
    """Calls that are sent together.

    Args:
        calls: Any number.
        connection: Where they are sent.
        terms: How all of them are sent.

    Attributes:
        replies: One for each call, in order.
    """

    def __init__(self, calls: Sequence[ModelCall], connection: Connection, terms: Terms) -> None:
        self._chunks = list(submits.chunks(calls))
        self._connection = connection
        self._terms = terms
        self._lock = threading.Lock()
        self._futures: list[Future[list[Outcome]]] = []
        self._tasks: list[asyncio.Task[list[Outcome]]] = []
        self._pool: ThreadPoolExecutor | None = None
        self.replies = [
            GroupReply(self, chunk, place)
            for chunk, calls_of_chunk in enumerate(self._chunks)
            for place in range(len(calls_of_chunk))
        ]

    def outcomes(self, chunk: int) -> list[Outcome]:
        """Return what became of the calls of one submit, blocking."""
        with self._lock:
            if not self._futures:
                self._start_threads()
        return self._futures[chunk].result()

    async def aoutcomes(self, chunk: int) -> list[Outcome]:
        """Return what became of the calls of one submit."""
        if not self._tasks:
            limit = asyncio.Semaphore(MAX_IN_FLIGHT)
            self._tasks = [
                asyncio.create_task(self._acarry(calls, limit)) for calls in self._chunks
            ]
        # Others may wait for the same submit when this reader is cancelled.
        return await asyncio.shield(self._tasks[chunk])

    def give_up(self) -> None:
        """Send nothing more, and in an event loop drop what is in flight."""
        for task in self._tasks:
            task.cancel()
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_threads(self) -> None:
        num_threads = min(MAX_IN_FLIGHT, len(self._chunks))
        self._pool = ThreadPoolExecutor(num_threads, "parrot-submit")
        self._futures = [self._pool.submit(self._carry, calls) for calls in self._chunks]
        # The threads end when all is sent.
        self._pool.shutdown(wait=False)

    def _carry(self, calls: Sequence[ModelCall]) -> list[Outcome]:
        return submits.run(submits.exchanges(calls), self._connection.client(), self._terms)

    async def _acarry(self, calls: Sequence[ModelCall], limit: asyncio.Semaphore) -> list[Outcome]:
        async with limit:
            client = await self._connection.async_client()
            return await submits.arun(submits.exchanges(calls), client, self._terms)


@dataclass(frozen=True, slots=True)
class GroupReply:
    """The reply to one call of a group; see ``reply.Reply``. Its text comes in one piece."""

    group: CallGroup
    chunk: int
    place: int

    def result(self) -> VariableView:
        """Return the variable in state ``ready``, blocking."""
        return _value(self.group.outcomes(self.chunk)[self.place])

    async def aresult(self) -> VariableView:
        """Return the variable in state ``ready``."""
        return _value((await self.group.aoutcomes(self.chunk))[self.place])

    def events(self) -> Generator[ReplyEvent, None, None]:
        """Yield the whole text and the variable, blocking."""
        yield from _events(self.result())

    async def aevents(self) -> AsyncGenerator[ReplyEvent, None]:
        """Yield the whole text and the variable."""
        for event in _events(await self.aresult()):
            yield event


def _value(outcome: Outcome) -> VariableView:
    if isinstance(outcome, ParrotError):
        raise outcome
    return outcome


def _events(view: VariableView) -> list[ReplyEvent]:
    texts = [ReplyText(view.reasoning or "", "reasoning"), ReplyText(view.value or "")]
    return [*(text for text in texts if text.text), view]
