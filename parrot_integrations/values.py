"""What the client knows of each variable, and waiting for it to know more.

A :class:`Slot` holds one immutable :class:`Known` at a time. Readers of streams replace it, from
any thread or event loop; threads and coroutines wait until it is another one than they have seen.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from parrot_backend.protocol import VariableView
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import ParrotError, StreamRestarted, value_error


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of a variable at one moment.

    Attributes:
        id: Id on the server; None before the server has accepted it.
        text: Text generated so far, as far as it was streamed.
        reasoning: The same of what the model thought before.
        view: The settled variable.
        error: Why no more can be known at present, for example a lost connection.
    """

    id: str | None = None
    text: str = ""
    reasoning: str = ""
    view: VariableView | None = None
    error: ParrotError | None = None

    def is_final(self) -> bool:
        """True when waiting longer is of no use."""
        return self.view is not None or self.error is not None

    def is_outdated_by(self, other: Known) -> bool:
        """Tell whether ``other`` is another state; each change makes a new record."""
        return other is not self

    def value(self) -> str:
        """Return the value of a final state.

        Raises:
            ValueFailed: The variable failed or was cancelled.
            ParrotError: What keeps the client from knowing more.
        """
        if self.view is None:
            assert self.error is not None, "only a final state has a value"
            # The same error may be raised many times; each raise starts a fresh traceback.
            raise self.error.with_traceback(None)
        if self.view.value is None:
            raise value_error(self.view)
        return self.view.value


class Slot:
    """The place of one variable; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._known = Known()
        self._changed = threading.Condition()
        self._wakers: set[Callable[[], object]] = set()

    @property
    def known(self) -> Known:
        """What is known now."""
        return self._known

    def accept(self, variable_id: str) -> None:
        """Note that the server has the variable."""
        with self._changed:
            self._publish(replace(self._known, id=variable_id, error=None))

    def add_text(self, text: str) -> None:
        """Append generated text."""
        self._update(lambda known: replace(known, text=known.text + text))

    def add_reasoning(self, text: str) -> None:
        """Append to what the model thought."""
        self._update(lambda known: replace(known, reasoning=known.reasoning + text))

    def reset_text(self) -> None:
        """Forget the generated text."""
        self._update(lambda known: replace(known, text="", reasoning=""))

    def settle(self, view: VariableView) -> None:
        """Note the end of the variable; what is said later is ignored."""
        self._update(lambda known: replace(known, view=view, error=None))

    def lose(self, error: ParrotError) -> None:
        """Note that nobody listens for this variable any more, and why."""
        self._update(lambda known: replace(known, error=error))

    def retry(self) -> None:
        """Forget an error, because somebody listens again."""
        self._update(lambda known: replace(known, error=None) if known.error else known)

    def wait_until(
        self, is_enough: Callable[[Known], bool], deadline: Deadline, what: str
    ) -> Known:
        """Block until enough is known; ``what`` names it in the error.

        Raises:
            WaitTimeout: The deadline came first.
        """
        known = self._known
        while not is_enough(known):
            deadline.check(what)
            known = self.wait(known, deadline.remaining_s())
        return known

    async def await_until(
        self, is_enough: Callable[[Known], bool], deadline: Deadline, what: str
    ) -> Known:
        """Await what :meth:`wait_until` blocks for."""
        known = self._known
        while not is_enough(known):
            deadline.check(what)
            known = await self.await_change(known, deadline.remaining_s())
        return known

    def wait(self, seen: Known, timeout_s: float | None) -> Known:
        """Block until more is known than ``seen``, or the time is up; return what is known."""
        with self._changed:
            self._changed.wait_for(lambda: self._known is not seen, timeout_s)
            return self._known

    async def await_change(self, seen: Known, timeout_s: float | None) -> Known:
        """Await what :meth:`wait` blocks for; works in any event loop."""
        woken = asyncio.Event()
        waker = partial(asyncio.get_running_loop().call_soon_threadsafe, woken.set)
        with self._changed:
            if self._known is not seen:
                return self._known
            self._wakers.add(waker)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await woken.wait()
        finally:
            with self._changed:
                self._wakers.discard(waker)
        return self._known

    def _update(self, change: Callable[[Known], Known]) -> None:
        with self._changed:
            if self._known.view is None:
                self._publish(change(self._known))

    def _publish(self, known: Known) -> None:
        self._known = known
        self._changed.notify_all()
        for waker in self._wakers:
            # A loop that was closed while it waited has nobody left to wake.
            with suppress(RuntimeError):
                waker()


class TextFollower:
    """Turns successive texts of one variable into pieces, each yielded once.

    When a call runs again elsewhere, its text starts anew. As long as the new text repeats the
    old, nothing is noticed but a pause; where it differs, what was yielded is void.
    """

    def __init__(self) -> None:
        self._yielded = ""

    def advance(self, known: Known) -> str:
        """Return the text that is new in ``known``.

        Raises:
            StreamRestarted: The text differs from what was returned before.
        """
        text = known.value() if known.is_final() else known.text
        return self.follow(text, is_final=known.is_final())

    def follow(self, text: str, *, is_final: bool) -> str:
        """Return what is new in a text, which is the whole one if it is final.

        Raises:
            StreamRestarted: It differs from what was returned before.
        """
        if text.startswith(self._yielded):
            new = text[len(self._yielded) :]
            self._yielded = text
            return new
        if not is_final and self._yielded.startswith(text):
            return ""
        raise StreamRestarted(
            "stream_restarted",
            "the call ran again and its text differs from what was streamed: discard that and "
            "stream again, or get the value",
        )


def ready_view(name: str, value: str) -> VariableView:
    """Return the view of a variable whose value this client gave."""
    return VariableView(id=name, name=name, state="ready", value=value)
