"""One session of a server for one run of a team: calls are added to it as they are made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from parrot_backend.protocol import (
    SessionView,
    SubmitRequest,
    VariableDeclaration,
    VariableView,
    WantedOutput,
    WireTransform,
)
from parrot_integrations._replies import is_settled
from parrot_integrations.errors import ParrotError, RequestRejected, value_error
from parrot_integrations.graph import NameBook
from parrot_integrations.metagpt.texts import KnownTexts, Source
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.following import StreamFollower
from parrot_integrations.planning.reply import ReplyEvent
from parrot_integrations.planning.submits import Terms, timed_out

_logger = logging.getLogger(__name__)

#: Returns the transform that takes a part out of a text, if the server has one.
PartFinder = Callable[[str, str], WireTransform | None]

#: Refusals after which a session takes nothing any more; a new one does.
_IS_FULL = frozenset({"session_too_large", "graph_too_large"})
_IS_GONE = frozenset({"unknown_session", "session_closed"})


@dataclass
class _Open:
    """A session that the server has.

    Attributes:
        id: Its id.
        names: Those that are taken in it.
        texts: The values it holds.
    """

    id: str
    names: NameBook = field(default_factory=NameBook)
    texts: KnownTexts = field(default_factory=KnownTexts)


class TeamSession:
    """The calls of one run of a team to one server; belongs to one event loop.

    Attributes:
        num_opened: Sessions so far. Where the server lost one, or has no more room in it, the
            calls go on in another.
    """

    def __init__(self, connection: Connection) -> None:
        self.num_opened = 0
        self._connection = connection
        self._lock = asyncio.Lock()
        self._open: _Open | None = None
        #: Those that took no more; calls may still run in them.
        self._full: list[_Open] = []
        self._constants: dict[str, str] = {}

    def add_constant(self, hint: str, text: str) -> None:
        """Declare a text that the team was given; it must come before the first call."""
        self._constants[hint] = text

    def add_part(self, text: str, part: str, find: PartFinder) -> None:
        """Take in what the program cut out of a value, if the server can do the same."""
        if self._open is None or part == text:
            return
        source = self._open.texts.source_of(text)
        transform = find(text, part) if source else None
        if source is not None and transform is not None:
            self._open.texts.add(part, source.then(transform))

    async def generate(self, call: ModelCall, hint: str, terms: Terms) -> VariableView:
        """Run a call and return its variable in state ``ready``.

        A call that was cancelled is sent once more: when a connection breaks the server gives up
        its work, and the client's own second try then finds that.

        Args:
            call: With concrete texts.
            hint: What it is called in the graph.
            terms: How it is sent.
        """
        was_cancelled = False
        while True:
            opened = await self._opened(terms)
            try:
                view = await self._ask(opened, call, hint, terms)
            except RequestRejected as exc:
                self._leave_or_raise(opened, exc)
                continue
            if view.state == "cancelled" and not was_cancelled:
                was_cancelled = True
                continue
            if view.state != "ready":
                raise value_error(view)
            opened.texts.add(view.value or "", Source(view.name))
            return view

    async def stream(
        self, call: ModelCall, hint: str, terms: Terms
    ) -> AsyncGenerator[ReplyEvent, None]:
        """Run a call and yield its text as it is generated, then its variable; no timeout."""
        client = await self._connection.async_client()
        follower = StreamFollower()
        while not follower.is_over:
            opened = await self._opened(terms)
            request = _request(opened, call, hint, terms)
            try:
                async with aclosing(client.submit_stream(request)) as events:
                    async for event in events:
                        for found in follower.take(event):
                            if isinstance(found, VariableView):
                                opened.texts.add(found.value or "", Source(found.name))
                            yield found
            except RequestRejected as exc:
                self._leave_or_raise(opened, exc)

    async def open_id(self, terms: Terms) -> str:
        """Return the id of the session that takes calls."""
        return (await self._opened(terms)).id

    async def views(self) -> list[SessionView]:
        """Return the sessions as the server shows them, in order; but for those it has lost."""
        client = await self._connection.async_client()
        views = []
        for held in self._held():
            try:
                views.append(await client.get_session(held.id))
            except ParrotError as exc:
                _logger.debug("session %s could not be looked at: %s", held.id, exc)
        return views

    async def close(self) -> None:
        """End the sessions; the server forgets them."""
        client = await self._connection.async_client()
        for held in self._held():
            with suppress(ParrotError):
                await client.close_session(held.id)
        self._open, self._full = None, []

    def _held(self) -> list[_Open]:
        return [*self._full, *([] if self._open is None else [self._open])]

    async def _opened(self, terms: Terms) -> _Open:
        async with self._lock:
            if self._open is None:
                self._open = await self._open_one(terms)
                self.num_opened += 1
            return self._open

    async def _open_one(self, terms: Terms) -> _Open:
        client = await self._connection.async_client()
        names = NameBook()
        declared = {names.unique(hint): text for hint, text in self._constants.items()}
        request = SubmitRequest(
            app=terms.app,
            metadata=dict(terms.metadata),
            variables=tuple(
                VariableDeclaration(name=name, value=text) for name, text in declared.items()
            ),
            # To wait for values that are there already says that nobody reads texts in pieces.
            outputs=tuple(WantedOutput(variable=name, criteria=None) for name in declared),
            wait=bool(declared),
        )
        opened = _Open((await client.submit(request)).session_id, names)
        for name, text in declared.items():
            opened.texts.add(text, Source(name))
        return opened

    async def _ask(self, opened: _Open, call: ModelCall, hint: str, terms: Terms) -> VariableView:
        client = await self._connection.async_client()
        request = _request(opened, call, hint, terms)
        try:
            # The limit is kept here: a submit that may end early could be followed by a stream, and
            # then the engine would have to tell each token.
            async with asyncio.timeout(terms.timeout_s):
                (view,) = (await client.submit(request)).variables.values()
                if not is_settled(view):
                    # The server waits only so long in one request.
                    view = await client.get_variable(view.id)
        except asyncio.CancelledError:
            await self._give_up(opened, request)
            raise
        except TimeoutError as exc:
            await self._give_up(opened, request)
            raise timed_out(terms) from exc
        return view

    async def _give_up(self, opened: _Open, request: SubmitRequest) -> None:
        client = await self._connection.async_client()
        with suppress(ParrotError):
            await client.cancel(opened.id, tuple(wanted.variable for wanted in request.outputs))

    def _leave_or_raise(self, opened: _Open, refusal: RequestRejected) -> None:
        """Go on in a new session if this one is over; its first prompts are plain text."""
        if refusal.code not in _IS_FULL | _IS_GONE:
            raise refusal
        if self._open is opened:
            self._open = None
            if refusal.code in _IS_FULL:
                self._full.append(opened)


def _request(opened: _Open, call: ModelCall, hint: str, terms: Terms) -> SubmitRequest:
    name = opened.names.unique(hint)
    contents = [opened.texts.split(text) if text else () for text in call.texts]
    return SubmitRequest(
        session_id=opened.id,
        nodes=(call.to_node(name, name, contents, terms.stage),),
        outputs=(WantedOutput(variable=name, criteria=terms.criteria),),
        on_disconnect="cancel",
    )
