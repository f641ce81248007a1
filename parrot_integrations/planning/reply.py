"""What an adapter gets for one call of a model, wherever it comes from.

It is the same for a call that was planned and runs already, and for one that is sent by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Literal, Protocol

from parrot_backend.protocol import VariableView


@dataclass(frozen=True, slots=True)
class ReplyText:
    """More text of a reply, or of the reasoning before it."""

    text: str
    kind: Literal["text", "reasoning"] = "text"


#: ``ReplyText`` any number of times, then one ``VariableView`` in state ``ready``.
ReplyEvent = ReplyText | VariableView


class Reply(Protocol):
    """The reply to one call; each may be read once, by one of the four methods.

    All raise a ``ParrotError`` when there is no value: ``ValueFailed``, ``ConnectionFailed``, ...
    A stream that is closed before its end gives the call up.
    """

    def result(self) -> VariableView:
        """Return the variable in state ``ready``, blocking."""

    async def aresult(self) -> VariableView:
        """Return the variable in state ``ready``."""

    def events(self) -> Generator[ReplyEvent, None, None]:
        """Yield the text as it is generated, then the variable, blocking."""

    def aevents(self) -> AsyncGenerator[ReplyEvent, None]:
        """Yield the text as it is generated, then the variable."""


class Direct(Reply, Protocol):
    """The reply to a call that is sent by itself when it is first read."""

    @property
    def timeout_s(self) -> float | None:
        """Longest wait for it; None is as long as it takes."""
