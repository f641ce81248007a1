"""What the replies of one request have in common, whole or streamed. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from parrot_backend.core.chat import TokenLogprob
from parrot_backend.core.commands import AnswerWaiter, StreamText


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in front of every reply.

    Attributes:
        id: Id of the reply.
        created_s: Unix time.
        model: The model as the caller named it.
    """

    id: str
    created_s: int
    model: str

    def fields(self, kind: str) -> dict[str, Any]:
        """Return it as fields of a reply of a kind."""
        return {"id": self.id, "object": kind, "created": self.created_s, "model": self.model}


class Writer(Protocol):
    """Writes the events of one stream; ``choice`` counts from 0."""

    def begin(self) -> str:
        """Return what comes before all else."""
        ...

    def text(self, choice: int, message: StreamText) -> str:
        """Return more text or reasoning of a choice."""
        ...

    def answer(self, choice: int, answer: AnswerWaiter) -> str:
        """Return the end of a choice."""
        ...

    def end(self, answers: Sequence[AnswerWaiter]) -> str:
        """Return what comes last; ``answers`` holds one for each choice."""
        ...

    def error(self, body: bytes) -> str:
        """Return the end of a stream that cannot go on; ``body`` is that of an error reply."""
        ...


class LogprobCounter:
    """Tells of each choice's log probabilities which have not been told yet."""

    def __init__(self) -> None:
        self._num_told: dict[int, int] = {}

    def with_text(self, choice: int, message: StreamText) -> tuple[TokenLogprob, ...] | None:
        """Return those that come with more text, None if there are none."""
        if not message.logprobs:
            return None
        self._num_told[choice] = self._num_told.get(choice, 0) + len(message.logprobs)
        return message.logprobs

    def rest(self, choice: int, answer: AnswerWaiter) -> tuple[TokenLogprob, ...] | None:
        """Return those that have not come with any text, None if there are none."""
        every = answer.details.logprobs
        return None if every is None else every[self._num_told.get(choice, 0) :] or None


#: The end of the streams of chats and completions.
DONE = "data: [DONE]\n\n"


def data_event(content: object) -> str:
    """Return an event without a name."""
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n"


def error_events(body: bytes) -> str:
    """Return how streams of chats and completions end with an error."""
    return f"data: {body.decode()}\n\n{DONE}"
