"""Semantic variables: the futures that semantic functions take and return.

A variable is one of three:

- *constant*: made with a value. It belongs to no program; each one that uses it declares it once.
- *external*: made without a value, to be ``set`` by this client, before or after it was sent.
- *output*: returned by a semantic function or a transform.

Externals and outputs belong to one program, externals from their first use on.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

from parrot_backend.protocol import (
    InputSegment,
    JsonFieldTransform,
    RegexGroupTransform,
    StripTransform,
    Usage,
    WireCriteria,
    WireTransform,
)
from parrot_integrations._program import Program
from parrot_integrations.criteria import UNSTATED
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import ProgramError
from parrot_integrations.scope import choose_program
from parrot_integrations.values import Known, Slot, TextFollower, ready_view


class SemanticVariable:
    """A text that is known now or later, here or on the server.

    Args:
        value: The text; None makes an external variable that is set later.
        name: What it is called on the server; None takes the name of the first parameter it is
            passed to.

    Attributes:
        program: The program it belongs to; None for a constant, or an external nobody used yet.
        slot: What is known of it.
    """

    def __init__(self, value: str | None = None, *, name: str | None = None) -> None:
        self.program: Program | None = None
        self.slot = Slot()
        self._name = name
        self._is_output = False
        #: Held while an external joins a program or becomes a constant.
        self._binding = threading.Lock()
        if value is not None:
            self.slot.settle(ready_view(name or "constant", _checked_text(value)))

    @classmethod
    def of_output(cls, program: Program, name: str) -> SemanticVariable:
        """Return the handle of a variable that a recorded node of ``program`` makes."""
        variable = cls(name=name)
        variable.program, variable.slot, variable._is_output = program, program.slot(name), True
        return variable

    @property
    def id(self) -> str | None:
        """Id on the server; None before the server has it, and for constants."""
        return self.slot.known.id

    @property
    def usage(self) -> Usage | None:
        """Tokens that generating it took; None if it was not generated, or not yet."""
        view = self.slot.known.view
        return None if view is None else view.usage

    def name_in(self, program: Program, hint: str) -> str:
        """Return its name in a program, declaring it there on first use."""
        with self._binding:
            view = self.slot.known.view
            if self.program is None and view is not None:
                return program.declare_constant(self, self._name or hint, view.value or "")
            if self.program is None:
                self._name = program.declare_external(self._name or hint, self.slot)
                self.program = program
        assert self._name is not None, "a variable of a program has a name"
        return self._name

    def place(self) -> tuple[Program, str]:
        """Return its program and its name there; an external nobody used yet joins one."""
        program = choose_program([]) if self.program is None else self.program
        return program, self.name_in(program, "variable")

    def want(self, perf: WireCriteria, *, is_blocking: bool) -> None:
        """See to it that the value will be known, without waiting for it."""
        if self.slot.known.view is None:
            program, name = self.place()
            if is_blocking:
                program.check_blocking()
            program.want([name], perf)

    def get(self, perf: WireCriteria = UNSTATED, timeout_s: float | None = None) -> str:
        """Return the value, waiting for it.

        The first get ships everything recorded so far.

        Args:
            perf: ``LATENCY``, ``THROUGHPUT`` or ``Criteria(...)`` with targets.
            timeout_s: Longest wait; None waits for as long as it takes.

        Raises:
            ValueFailed: It failed; ``ValueCancelled`` if it was given up.
            WaitTimeout: The time is up; the work goes on.
            ParrotError: The server refused, or cannot be reached.
        """
        self.want(perf, is_blocking=True)
        return self.slot.wait_until(Known.is_final, Deadline(timeout_s), repr(self)).value()

    async def aget(self, perf: WireCriteria = UNSTATED, timeout_s: float | None = None) -> str:
        """Return the value, awaiting it; as :meth:`get`."""
        self.want(perf, is_blocking=False)
        return (
            await self.slot.await_until(Known.is_final, Deadline(timeout_s), repr(self))
        ).value()

    def stream(
        self, perf: WireCriteria = UNSTATED, timeout_s: float | None = None
    ) -> Iterator[str]:
        """Yield the text in pieces while it is generated.

        If the call has to run again on another engine, the stream pauses until the new text has
        caught up, and goes on; if the new text differs from what was yielded, it raises.

        Args:
            perf: As for :meth:`get`.
            timeout_s: Longest time for the whole text.

        Raises:
            StreamRestarted: What was yielded is void.
            ParrotError: As for :meth:`get`.
        """
        self.want(perf, is_blocking=True)
        follower, deadline, known = TextFollower(), Deadline(timeout_s), self.slot.known
        while True:
            if text := follower.advance(known):
                yield text
            if known.is_final():
                return
            known = self.slot.wait_until(known.is_outdated_by, deadline, repr(self))

    async def astream(
        self, perf: WireCriteria = UNSTATED, timeout_s: float | None = None
    ) -> AsyncIterator[str]:
        """Yield the text in pieces while it is generated; as :meth:`stream`."""
        self.want(perf, is_blocking=False)
        follower, deadline, known = TextFollower(), Deadline(timeout_s), self.slot.known
        while True:
            if text := follower.advance(known):
                yield text
            if known.is_final():
                return
            known = await self.slot.await_until(known.is_outdated_by, deadline, repr(self))

    def set(self, value: str) -> None:
        """Set an external variable; before it was sent this costs nothing.

        Raises:
            ProgramError: It has a value, or a call makes it.
        """
        if not self._set_unbound(value):
            program, name = self.place()
            program.set(name, value)

    async def aset(self, value: str) -> None:
        """Set an external variable; as :meth:`set`."""
        if not self._set_unbound(value):
            program, name = self.place()
            await program.aset(name, value)

    def cancel(self) -> None:
        """Give up the value, and on the server all work that only it needs.

        Gets of it, and of what depends on it, raise ``ValueCancelled``. A value that is there
        stays there.

        Raises:
            ProgramError: ``not_started``: no get has sent it to the server yet.
        """
        if self.slot.known.view is None:
            program, name = self.place()
            program.cancel(name)

    async def acancel(self) -> None:
        """Give up the value; as :meth:`cancel`."""
        if self.slot.known.view is None:
            program, name = self.place()
            await program.acancel(name)

    def strip(self) -> SemanticVariable:
        """Return the text without white space at its ends."""
        return self._transformed("strip", StripTransform())

    def json(self, path: str) -> SemanticVariable:
        """Return a field of the text read as JSON, by a dotted path such as ``items.0.title``."""
        return self._transformed("json", JsonFieldTransform(path=path))

    def regex(self, pattern: str, group: int = 0) -> SemanticVariable:
        """Return one group of the first match of an RE2 pattern; ``.`` matches newlines."""
        return self._transformed("regex", RegexGroupTransform(pattern=pattern, group=group))

    def __repr__(self) -> str:
        """Show the name and the state, never the value."""
        view = self.slot.known.view
        state = "pending" if view is None else view.state
        return f"<SemanticVariable {self._name or '(unnamed)'}: {state}>"

    def __format__(self, spec: str) -> str:
        """Refuse: in an f-string the future itself would silently end up in a prompt."""
        raise ProgramError(
            "variable_in_text",
            "a semantic variable is not a str: use get(), P.format(...), or pass it to a function",
        )

    def _transformed(self, what: str, transform: WireTransform) -> SemanticVariable:
        program = choose_program([self.program])
        name = self.name_in(program, "text")
        content = (InputSegment(variable=name),)
        output = program.add_transform(f"{name}-{what}", content, (transform,))
        return self.of_output(program, output)

    def _set_unbound(self, value: str) -> bool:
        """Turn an external that nobody used yet into a constant; False if it has a program."""
        _checked_text(value)
        if self._is_output:
            raise ProgramError("variable_has_producer", f"a call makes the value of {self!r}")
        with self._binding:
            if self.slot.known.view is not None:
                raise ProgramError("variable_already_set", f"{self!r} has a value already")
            if self.program is None:
                self.slot.settle(ready_view(self._name or "constant", value))
            return self.program is None


def _checked_text(value: str) -> str:
    if not isinstance(value, str):
        raise ProgramError(
            "invalid_argument",
            f"a semantic variable holds text, not {type(value).__name__}: pass str(...) of it",
        )
    return value
