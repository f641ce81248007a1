"""Replies to calls that no plan has: each call is one submit, several at once share submits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass

from parrot_backend.protocol import VariableView
from parrot_integrations.errors import ParrotError, WaitTimeout
from parrot_integrations.planning import submits
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.context import claim
from parrot_integrations.planning.following import StreamFollower
from parrot_integrations.planning.groups import CallGroup, GroupReply
from parrot_integrations.planning.reply import Reply, ReplyEvent
from parrot_integrations.planning.submits import Outcome, Terms


@dataclass(frozen=True, slots=True)
class DirectReply:
    """The reply to one call that is sent by itself when it is read; see ``reply.Reply``."""

    call: ModelCall
    connection: Connection
    terms: Terms = Terms()  # noqa: RUF009 - immutable

    @property
    def timeout_s(self) -> float | None:
        """Longest wait; None is as long as it takes."""
        return self.terms.timeout_s

    def result(self) -> VariableView:
        """Send the call and return its variable in state ``ready``, blocking."""
        client = self.connection.client()
        return _only(submits.run(submits.exchanges((self.call,)), client, self.terms))

    async def aresult(self) -> VariableView:
        """Send the call and return its variable in state ``ready``."""
        client = await self.connection.async_client()
        return _only(await submits.arun(submits.exchanges((self.call,)), client, self.terms))

    def events(self) -> Generator[ReplyEvent, None, None]:
        """Send the call and yield its text as it is generated, then the variable, blocking."""
        client = self.connection.client()
        follower = StreamFollower()
        while not follower.is_over:
            request = submits.to_request((self.call,), self.terms)
            with closing(client.submit_stream(request)) as events:
                try:
                    for event in events:
                        yield from follower.take(event)
                except WaitTimeout as exc:
                    submits.give_up(client, follower.session_id)
                    raise submits.timed_out(self.terms) from exc

    async def aevents(self) -> AsyncGenerator[ReplyEvent, None]:
        """Send the call and yield its text as it is generated, then the variable."""
        client = await self.connection.async_client()
        follower = StreamFollower()
        while not follower.is_over:
            request = submits.to_request((self.call,), self.terms)
            async with aclosing(client.submit_stream(request)) as events:
                try:
                    async for event in events:
                        for found in follower.take(event):
                            yield found
                except WaitTimeout as exc:
                    await submits.agive_up(client, follower.session_id)
                    raise submits.timed_out(self.terms) from exc


def replies_to(calls: Sequence[ModelCall], connection: Connection, terms: Terms) -> list[Reply]:
    """Return the replies to calls in order: from the plan in force, or else sent directly.

    What the plan does not have is sent when a reply is first read: a single call by itself, several
    in as few submits as the server takes.
    """
    claimed = [
        claim(call, connection.settings, DirectReply(call, connection, terms)) for call in calls
    ]
    unplanned = [call for call, reply in zip(calls, claimed, strict=True) if reply is None]
    sent: Sequence[Reply]
    if len(unplanned) == 1:
        sent = [DirectReply(unplanned[0], connection, terms)]
    else:
        sent = CallGroup(unplanned, connection, terms).replies
    rest = iter(sent)
    return [next(rest) if reply is None else reply for reply in claimed]


def results(replies: Sequence[Reply]) -> list[Outcome]:
    """Return what became of each call, in order, blocking; one failure does not lose the others."""
    outcomes: list[Outcome] = []
    for reply in replies:
        try:
            outcomes.append(reply.result())
        except ParrotError as exc:
            outcomes.append(exc)
    return outcomes


async def aresults(replies: Sequence[Reply]) -> list[Outcome]:
    """Return what became of each call, in order; one failure does not lose the others."""
    return list(await asyncio.gather(*map(_aoutcome, replies)))


async def _aoutcome(reply: Reply) -> Outcome:
    try:
        return await reply.aresult()
    except ParrotError as exc:
        return exc
    except asyncio.CancelledError:
        if isinstance(reply, GroupReply):
            reply.group.give_up()
        raise


def _only(outcomes: Sequence[Outcome]) -> VariableView:
    (view,) = submits.succeeded(outcomes)
    return view
