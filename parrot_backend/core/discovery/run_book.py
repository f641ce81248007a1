"""What is known of all sessions whose structure is found in texts, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from parrot_backend.core.discovery.pieces import Fresh
from parrot_backend.core.discovery.stages import StageShape
from parrot_backend.core.discovery.structure import FoundCall, RunStructure
from parrot_backend.core.discovery.templates import template_of
from parrot_backend.core.ids import NodeId, SessionId, VariableId


@dataclass(slots=True)
class _First:
    """The first call of a session, which is taken in when there is a second one.

    Attributes:
        ended: What it made, with its value, once it has ended; the variable is None if it failed.
    """

    node: NodeId
    texts: Sequence[str]
    declared: str | None
    call: FoundCall
    ended: tuple[VariableId | None, str] | None = None


@dataclass(slots=True)
class _Run:
    """One session.

    Attributes:
        begun: Calls that have not ended.
        num_chars: What it counts towards the bound.
        is_whole: Nothing of it was forgotten.
    """

    structure: RunStructure = field(default_factory=RunStructure)
    first: _First | None = None
    begun: dict[NodeId, FoundCall] = field(default_factory=dict)
    num_calls: int = 0
    num_chars: int = 0
    is_whole: bool = True


class RunBook:
    """The structures of all sessions.

    To remember a prompt costs time, which the only call of a session would pay for nothing. So a
    first call is merely noted, and is taken in when a second one comes.

    Args:
        max_chars: How much text is remembered in all; of the sessions that were not heard of for
            the longest all is forgotten, and what they say next begins anew.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._num_chars = 0
        self._runs: dict[SessionId, _Run] = {}
        self._by_use: OrderedDict[SessionId, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def num_chars(self) -> int:
        """How much text is remembered."""
        return self._num_chars

    def begin(
        self,
        session: SessionId,
        node: NodeId,
        texts: Sequence[str],
        declared: str | None = None,
    ) -> FoundCall:
        """Take in a call of a session, and return what is found of it.

        Args:
            session: The session, which may be new.
            node: The call.
            texts: The texts of its messages.
            declared: Which part of the program the client says this is.
        """
        run = self._runs.get(session)
        if run is None:
            run = self._runs[session] = _Run()
        run.num_calls += 1
        if run.num_calls == 1:
            run.first = _First(node, texts, declared, _alone(texts, declared))
            return run.first.call
        if run.first is not None:
            self._take_in(run, run.first)
        call = run.begun[node] = run.structure.begin(texts, declared)
        self._count(session, run)
        return call

    def end(
        self, session: SessionId, node: NodeId, variable: VariableId | None, value: str
    ) -> None:
        """Take in that a call has ended.

        Args:
            session: Its session.
            node: The call.
            variable: What it made; None if it failed.
            value: The value of that.
        """
        run = self._runs.get(session)
        if run is None:
            return
        if run.first is not None and run.first.node == node:
            run.first.ended = (variable, value)
            return
        call = run.begun.pop(node, None)
        if call is not None:
            run.structure.end(call, variable, value)
            self._count(session, run)

    def shape(self, session: SessionId, number: int = 0) -> tuple[StageShape, ...]:
        """Return the shapes of the stages so far of one of a session's runs."""
        run = self._runs[session]
        if run.first is not None:
            return (StageShape((run.first.call.template,), 1),)
        return run.structure.shape(number)

    def forget(self, session: SessionId) -> list[tuple[StageShape, ...]]:
        """Forget a session; return the shapes of its runs, if known from beginning to end.

        There is nothing to learn from runs of a single call; they are left out.
        """
        run = self._runs.pop(session, None)
        if run is None:
            return []
        self._by_use.pop(session, None)
        self._num_chars -= run.num_chars
        if not run.is_whole:
            return []
        return [
            stages
            for stages in run.structure.shapes()
            if len(stages) > 1 or any(stage.width > 1 for stage in stages)
        ]

    def _take_in(self, run: _Run, first: _First) -> None:
        run.first = None
        call = run.structure.begin(first.texts, first.declared)
        if first.ended is None:
            run.begun[first.node] = call
        else:
            run.structure.end(call, *first.ended)

    def _count(self, session: SessionId, run: _Run) -> None:
        """Bring the account of a session's text up to date, and hold the bound."""
        num_chars = run.structure.num_chars
        self._num_chars += num_chars - run.num_chars
        run.num_chars = num_chars
        self._by_use[session] = None
        self._by_use.move_to_end(session)
        while self._num_chars > self._max_chars:
            oldest, _ = self._by_use.popitem(last=False)
            self._num_chars -= self._runs[oldest].num_chars
            self._runs[oldest] = _Run(is_whole=False)


def _alone(texts: Sequence[str], declared: str | None) -> FoundCall:
    """Return what is found of a call before which there was none."""
    pieces = tuple((Fresh(0, len(text)),) if text else () for text in texts)
    return FoundCall(pieces, (), 0, template_of(texts, pieces, declared), 0)
