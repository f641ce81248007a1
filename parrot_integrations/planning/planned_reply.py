"""The reply of a call that runs already, on behalf of a plan."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from parrot_backend.protocol import VariableView
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import (
    ConnectionFailed,
    ParrotError,
    Saturated,
    WaitTimeout,
    value_error,
)
from parrot_integrations.planning.reply import Direct, ReplyEvent, ReplyText
from parrot_integrations.planning.submits import Terms, timed_out
from parrot_integrations.values import Known, Slot, TextFollower


class Owner(Protocol):
    """The plan that a reply belongs to."""

    def learn(self, output: str, value: str) -> None:
        """Take in a value that the program has seen."""

    def lose(self) -> None:
        """Count a call that is made directly."""

    def give_up(self, output: str) -> None:
        """Cancel a call that nobody waits for any more."""


class PlannedReply:
    """Follows one variable of a plan; see ``reply.Reply``.

    If the plan is lost before anything was passed on, the call is made directly: the session was
    closed or has expired, a late-bound value could not be set, or what the call depended on failed
    where the program itself went on. A failure of the call itself is the program's to handle.

    The plan does not learn what a direct call returns: the graph goes on with a value of its own,
    if any, and what it makes of that must not pass for the program's.

    Args:
        plan: What it belongs to.
        output: The variable.
        slot: What is known of it.
        direct: Takes over if the plan is lost.
    """

    def __init__(self, plan: Owner, output: str, slot: Slot, direct: Direct) -> None:
        self._plan = plan
        self._output = output
        self._slot = slot
        self._direct = direct

    def result(self) -> VariableView:
        """Return the variable in state ``ready``, blocking."""
        with self._waiting() as deadline:
            known = self._slot.wait_until(Known.is_final, deadline, self._output)
        return self._taken(known) or self._direct.result()

    async def aresult(self) -> VariableView:
        """Return the variable in state ``ready``."""
        with self._waiting() as deadline:
            known = await self._slot.await_until(Known.is_final, deadline, self._output)
        return self._taken(known) or await self._direct.aresult()

    def events(self) -> Generator[ReplyEvent, None, None]:
        """Yield the text as it is generated, then the variable, blocking."""
        pieces, known = _Pieces(), self._slot.known
        with self._waiting() as deadline:
            while True:
                yield from pieces.new(known)
                if known.is_final():
                    break
                known = self._slot.wait_until(known.is_outdated_by, deadline, self._output)
        if (view := self._taken(known, may_go_direct=not pieces.has_any)) is not None:
            yield view
            return
        with closing(self._direct.events()) as events:
            yield from events

    async def aevents(self) -> AsyncGenerator[ReplyEvent, None]:
        """Yield the text as it is generated, then the variable."""
        pieces, known = _Pieces(), self._slot.known
        with self._waiting() as deadline:
            while True:
                for piece in pieces.new(known):
                    yield piece
                if known.is_final():
                    break
                known = await self._slot.await_until(known.is_outdated_by, deadline, self._output)
        if (view := self._taken(known, may_go_direct=not pieces.has_any)) is not None:
            yield view
            return
        async with aclosing(self._direct.aevents()) as events:
            async for event in events:
                yield event

    @contextmanager
    def _waiting(self) -> Iterator[Deadline]:
        """Wait with the call's own patience; who does not wait to the end gives the call up."""
        timeout_s = self._direct.timeout_s
        try:
            yield Deadline(timeout_s)
        except WaitTimeout as exc:
            self._plan.give_up(self._output)
            raise timed_out(Terms(timeout_s=timeout_s)) from exc
        except BaseException:
            # The reader is cancelled or closed, or the text that it has seen is void.
            self._plan.give_up(self._output)
            raise

    def _taken(self, known: Known, *, may_go_direct: bool = True) -> VariableView | None:
        """Return the value, or None if the call has to be made directly.

        Raises:
            ParrotError: The call itself failed, or the server could not be reached.
        """
        if known.view is not None and known.view.state == "ready":
            return self._learnt(known.view)
        error = value_error(known.view) if known.view is not None else known.error
        assert error is not None, "a final state without a value has an error"
        if may_go_direct and not _is_the_calls_own(known, error, self._output):
            self._plan.lose()
            return None
        raise error.with_traceback(None)

    def _learnt(self, view: VariableView) -> VariableView:
        self._plan.learn(self._output, view.value or "")
        return view


def _is_the_calls_own(known: Known, error: ParrotError, output: str) -> bool:
    """Tell whether the call would have had the same fate without a plan."""
    if known.view is None:
        return known.id is None and isinstance(error, ConnectionFailed | Saturated)
    failure = known.view.error
    return known.view.state == "failed" and failure is not None and failure.origin == output


@dataclass(slots=True)
class _Pieces:
    """Turns states of a variable into pieces of its reasoning and its text."""

    has_any: bool = False
    _text: TextFollower = field(default_factory=TextFollower)
    _reasoning: TextFollower = field(default_factory=TextFollower)

    def new(self, known: Known) -> list[ReplyText]:
        """Return what is new in a state."""
        view = known.view
        if known.is_final() and (view is None or view.state != "ready"):
            return []
        text, thought = known.text, known.reasoning
        if view is not None:
            text, thought = view.value or "", view.reasoning or ""
        found = [
            ReplyText(self._reasoning.follow(thought, is_final=view is not None), "reasoning"),
            ReplyText(self._text.follow(text, is_final=view is not None)),
        ]
        pieces = [piece for piece in found if piece.text]
        self.has_any |= bool(pieces)
        return pieces
