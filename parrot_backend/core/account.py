"""How many requests there are, and how each of them ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import Request
from parrot_backend.core.pruning import PRUNED
from parrot_backend.core.session import Session
from parrot_backend.core.variable import Variable, VariableState


class CallEnd(Enum):
    """How a request ended: each one in exactly one of these ways."""

    FINISHED = "finished"
    MERGED = "merged"
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one request.

    Attributes:
        request: The request.
        output: What it was to make.
        how: How it ended.
        equal: The request whose result it got, if it got one of a request that still ran.
    """

    request: Request
    output: Variable
    how: CallEnd
    equal: NodeId | None = None


class CallAccount:
    """Counts the requests of all sessions.

    Attributes:
        num_begun: Requests that were taken in so far.
        num_unfinished: Those of them that have not ended.
        endings: What ended with the present event, in order.
    """

    def __init__(self) -> None:
        self.num_begun = self.num_unfinished = 0
        self.endings: list[Ending] = []

    def begin(self, session: Session) -> None:
        """Take in that a request has come."""
        self.num_begun += 1
        self.num_unfinished += 1
        session.count_begun()

    def end(self, session: Session, ending: Ending, now_s: float) -> None:
        """Take in that a request has ended."""
        self.num_unfinished -= 1
        session.count_ended(now_s)
        self.endings.append(ending)


def unmade(output: Variable) -> CallEnd:
    """Return how the request of a variable ended that will have no value."""
    if output.failure is not None and output.failure.code == PRUNED:
        return CallEnd.PRUNED
    return CallEnd.CANCELLED if output.state is VariableState.CANCELLED else CallEnd.FAILED
