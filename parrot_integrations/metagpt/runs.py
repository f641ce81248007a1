"""Runs of teams: which one the code belongs to, and what the server made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from parrot_backend.protocol import SessionView
from parrot_integrations.metagpt.session import PartFinder, TeamSession
from parrot_integrations.planning.annotations import label
from parrot_integrations.planning.clients import Connection
from parrot_integrations.settings import ClientSettings


class TeamRun:
    """One ``Team.run``: a session for each server that its roles talk to.

    Attributes:
        views: The sessions as the server showed them at the end, if somebody watches the run.
        num_calls: Calls that were answered.
        num_failed: Calls that failed. MetaGPT logs what fails and returns as if nothing had
            happened.
    """

    def __init__(self) -> None:
        self.views: list[SessionView] = []
        self.num_calls = 0
        self.num_failed = 0
        self._idea: str | None = None
        self._sessions: dict[ClientSettings, TeamSession] = {}

    def begin_with(self, idea: str) -> None:
        """Take in what the team was asked for."""
        self._idea = idea

    def session(self, connection: Connection) -> TeamSession:
        """Return the session of the run's calls to a server."""
        session = self._sessions.get(connection.settings)
        if session is None:
            session = self._sessions[connection.settings] = TeamSession(connection)
            if self._idea:
                session.add_constant("idea", self._idea)
        return session

    def note_part(self, text: str, part: str, find: PartFinder) -> None:
        """Take in what the program cut out of a text."""
        for session in self._sessions.values():
            session.add_part(text, part, find)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the call in a block, by whether it ends well."""
        try:
            yield
        except BaseException:
            self.num_failed += 1
            raise
        self.num_calls += 1

    async def _look(self) -> None:
        for session in self._sessions.values():
            self.views += await session.views()

    async def _close(self) -> None:
        for session in self._sessions.values():
            await session.close()


_run: ContextVar[TeamRun | None] = ContextVar("parrot_team_run", default=None)
_role: ContextVar[Any] = ContextVar("parrot_team_role", default=None)
_watched: ContextVar[list[TeamRun] | None] = ContextVar("parrot_watched_runs", default=None)


@contextmanager
def watch_runs() -> Iterator[list[TeamRun]]:
    """Collect the runs that begin in a block; each keeps what the server showed at its end."""
    runs: list[TeamRun] = []
    token = _watched.set(runs)
    try:
        yield runs
    finally:
        _watched.reset(token)


def current_run() -> TeamRun | None:
    """Return the run that the code belongs to."""
    return _run.get()


@asynccontextmanager
async def new_run() -> AsyncIterator[TeamRun]:
    """Let the calls in a block belong to a run of their own."""
    run, watched = TeamRun(), _watched.get()
    if watched is not None:
        watched.append(run)
    token = _run.set(run)
    try:
        yield run
    finally:
        _run.reset(token)
        if watched is not None:
            await run._look()
        await run._close()


@contextmanager
def acting(role: Any) -> Iterator[None]:
    """Let the calls in a block be named after a role and what it does."""
    token = _role.set(role)
    try:
        yield
    finally:
        _role.reset(token)


def name_of_call() -> str:
    """Return what the present role does, and its name, for people who look at the graph."""
    role = _role.get()
    if role is None:
        return "call"
    action = getattr(role.rc.todo, "name", None) or "think"
    return label(f"{_in_ascii(action)}-{_in_ascii(role.name or role.profile)}") or "call"


def _in_ascii(name: str) -> str:
    """Return a name as the server takes them; others in Punycode, so that they stay apart."""
    return name if name.isascii() else name.encode("punycode").decode("ascii")
