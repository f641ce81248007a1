"""Which program a call belongs to.

Inside ``with program(...)`` (or ``async with``) it is the program of that scope, and variables of
other programs are refused. Outside any scope, the arguments decide: a call joins the program that
its variables belong to. Without such an argument it joins the default program of the context,
which is made on first use.

Scopes and default programs live in context variables: each thread and each asyncio task that has
not inherited one gets its own. A long-lived process should use scopes, because the default
program keeps everything it ever recorded until :func:`reset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType

from parrot_backend.protocol import Scalar
from parrot_integrations._program import Program
from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.client import ParrotClient
from parrot_integrations.couriers import TaskCourier, ThreadCourier
from parrot_integrations.errors import ProgramError

_scoped: ContextVar[Program | None] = ContextVar("parrot_scoped_program", default=None)
_default: ContextVar[Program | None] = ContextVar("parrot_default_program", default=None)


class ProgramScope:
    """Opens a program with ``with`` (threads) or ``async with`` (tasks)."""

    def __init__(
        self,
        client: ParrotClient | AsyncParrotClient | None,
        app: str,
        metadata: Mapping[str, Scalar] | None,
        keep: bool,
    ) -> None:
        self._client = client
        self._app = app
        self._metadata = metadata
        self._keep = keep
        self._program: Program | None = None
        self._token: Token[Program | None] | None = None
        self._tasks: TaskCourier | None = None

    def __enter__(self) -> Program:
        """Make the program current."""
        if isinstance(self._client, AsyncParrotClient):
            raise ProgramError("use_async", "an AsyncParrotClient needs `async with`")
        return self._enter(
            Program(ThreadCourier(self._client), app=self._app, metadata=self._metadata)
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session, unless it is to be kept."""
        program = self._leave()
        if not self._keep:
            program.close()

    async def __aenter__(self) -> Program:
        """Make the program current."""
        if isinstance(self._client, ParrotClient):
            raise ProgramError("use_sync", "a ParrotClient needs `with`; aget works there, too")
        self._tasks = TaskCourier(self._client or AsyncParrotClient())
        return self._enter(Program(self._tasks, app=self._app, metadata=self._metadata))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session, unless it is to be kept, and stop the readers."""
        program = self._leave()
        assert self._tasks is not None, "entered with `async with`"
        try:
            if not self._keep:
                await program.aclose()
        finally:
            await self._tasks.stop(close_client=self._client is None)

    def _enter(self, program: Program) -> Program:
        if self._token is not None:
            raise ProgramError("scope_in_use", "a program scope can be entered only once")
        self._program = program
        self._token = _scoped.set(program)
        return program

    def _leave(self) -> Program:
        assert self._program is not None, "a scope is left after it was entered"
        assert self._token is not None, "a scope is left after it was entered"
        _scoped.reset(self._token)
        return self._program


def program(
    *,
    client: ParrotClient | AsyncParrotClient | None = None,
    app: str = "",
    metadata: Mapping[str, Scalar] | None = None,
    keep: bool = False,
) -> ProgramScope:
    """Return a scope: one session on the server, closed at its end.

    Args:
        client: For ``async with`` an ``AsyncParrotClient``; None makes one from the environment.
        app: Name of the application, for people and for metrics.
        metadata: Free labels of the session.
        keep: Leave the session to the server's idle expiry, so that other processes, or this one
            (with ``with``), can still get its variables.
    """
    return ProgramScope(client, app, metadata, keep)


def reset() -> None:
    """Forget the default program of this context; the next call begins another.

    Variables of the old one stay usable. Its session is left to the server's idle expiry.
    """
    _default.set(None)


def current_program() -> Program:
    """Return the program of the innermost scope, or the default program of this context."""
    scoped = _scoped.get()
    if scoped is not None:
        return scoped
    default = _default.get()
    if default is None or default.has_ended:
        default = Program(ThreadCourier())
        _default.set(default)
    return default


def choose_program(bound: Iterable[Program | None]) -> Program:
    """Return the program of a call whose arguments belong to ``bound`` (None: to no program).

    Raises:
        ProgramError: ``foreign_variable``.
    """
    owners = {program for program in bound if program is not None}
    scoped = _scoped.get()
    if scoped is not None:
        owners.add(scoped)
    if len(owners) > 1:
        raise ProgramError(
            "foreign_variable",
            "a call reads a variable of another program: get its value there and pass that",
        )
    return owners.pop() if owners else current_program()
