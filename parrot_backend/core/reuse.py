"""Results that are known without an engine, given to the requests that wait for them."""

from __future__ import annotations

from dataclasses import replace

from parrot_backend.core.account import CallEnd, Ending
from parrot_backend.core.events import RequestFinished
from parrot_backend.core.fleet import Fleet
from parrot_backend.core.ids import node_of
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.progress import Progress
from parrot_backend.core.session_book import SessionBook


class Reuse:
    """Ends requests with results of others.

    Args:
        book: All sessions.
        fleet: Where such requests leave nothing behind.
        progress: Carries out what follows.
    """

    def __init__(self, book: SessionBook, fleet: Fleet, progress: Progress) -> None:
        self._book = book
        self._fleet = fleet
        self._progress = progress

    def carry_on(self, now_s: float) -> None:
        """End all requests whose results are known, and those that become ready by it."""
        for request, result in self._progress.optimiser.due(now_s):
            self._give(request, result, now_s)

    def _give(self, request: Request, result: RequestFinished, now_s: float) -> None:
        session = self._book.find(request.session)
        variable = session.graph.variables[request.output]
        # The whole prompt was in a cache, so to speak; no engine spent time on it.
        cached_tokens = result.usage.prompt_tokens
        request.usage = replace(
            result.usage, cached_tokens=cached_tokens, engine_s=None, decode_s=None
        )
        request.move(NodeState.FINISHED)
        request.first_token_s = request.finished_s = now_s
        # The result of a request that ended before does not say whose it was.
        equal = node_of(result.attempt) if result.attempt else None
        how = CallEnd.CACHED if equal is None else CallEnd.MERGED
        self._progress.account.end(session, Ending(request, variable, how, equal), now_s)
        session.touched_s = now_s
        self._progress.waiters.tell_late(variable, result)
        propagation = self._progress.propagation(session, now_s)
        propagation.resolve(
            variable,
            result.text,
            token_ids=result.token_ids,
            usage=request.usage,
            finish_reason=result.finish_reason,
            details=result.details,
        )
        self._progress.carry_out(session, propagation.effects, now_s, request)
        self._fleet.foresight.forget(request.id)
