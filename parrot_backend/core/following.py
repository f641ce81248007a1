"""Streams that report what is made in instances of a control node, from the moment it is there.

Nobody can ask for an instance's variables before the value is known that decides on the instance; a
client would hear of it, ask, and lose a round trip. So whoever waits for a control node's output
may *follow* it: each request in its instances then gets a waiter of its own at once, which belongs
to the same stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from parrot_backend.core.commands import Command, FollowInstance
from parrot_backend.core.control import ControlNode
from parrot_backend.core.ids import NodeId, WaiterId
from parrot_backend.core.nodes import Node, Request
from parrot_backend.core.session import Session
from parrot_backend.core.variable import Variable


class Attach(Protocol):
    """Lets somebody wait for a variable."""

    def __call__(self, variable: Variable, waiter: WaiterId, *, is_streaming: bool) -> None:
        """Attach a waiter."""


class Following:
    """Gives followers their waiters.

    Args:
        emit: Takes commands.
        attach: Lets a waiter wait.
    """

    def __init__(self, emit: Callable[[Command], None], attach: Attach) -> None:
        self._emit = emit
        self._attach = attach

    def begin(
        self, session: Session, variable: Variable, waiter: WaiterId, *, is_streaming: bool
    ) -> None:
        """Let a waiter of a control node's output follow it; other variables have no instances."""
        control = None if variable.producer is None else session.graph.nodes[variable.producer]
        if not isinstance(control, ControlNode):
            return
        for node in _made_by(session, control):
            self._follow(session, node, waiter, is_streaming)
        if not variable.is_settled:
            session.followers.setdefault(control.id, {})[waiter] = is_streaming

    def report(self, session: Session, added: Iterable[Node]) -> None:
        """Give whoever follows their control nodes a waiter for each new request."""
        if not session.followers:
            return
        for node in added:
            if isinstance(node, Request):
                outermost = NodeId(node.id.partition(":")[0])
                for waiter, is_streaming in session.followers.get(outermost, {}).items():
                    self._follow(session, node, waiter, is_streaming)

    def end(self, session: Session, variable: Variable) -> None:
        """A variable is settled: nothing more comes into being for it."""
        if variable.producer is not None:
            session.followers.pop(variable.producer, None)

    def leave(self, session: Session, variable: Variable, waiter: WaiterId) -> None:
        """Somebody has gone."""
        if variable.producer is not None and variable.producer in session.followers:
            session.followers[variable.producer].pop(waiter, None)

    def _follow(
        self, session: Session, request: Request, waiter: WaiterId, is_streaming: bool
    ) -> None:
        variable = session.graph.variables[request.output]
        own = WaiterId(f"{waiter}/{variable.name}")
        self._emit(FollowInstance(waiter, own, variable.id))
        self._attach(variable, own, is_streaming=is_streaming)


def _made_by(session: Session, control: ControlNode) -> list[Request]:
    """Return the requests in the instances of a control node, and in theirs, by arrival."""
    graph = session.graph
    found: list[Request] = []
    controls = [control]
    while controls:
        for variable in controls.pop().made:
            producer = graph.variables[variable].producer
            node = None if producer is None else graph.nodes[producer]
            if isinstance(node, ControlNode):
                controls.append(node)
            elif isinstance(node, Request):
                found.append(node)
    return sorted(found, key=lambda request: request.order)
