"""Chats as turns: what was said before a call, and its answer as clients repeat it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from parrot_backend import protocol as wire
from parrot_backend.core.chat import ToolCall
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.discovery.continuity import Turn


class Conversation(NamedTuple):
    """What a call goes on with.

    Attributes:
        turns: Its messages.
        begun: What the answer begins with already.
    """

    turns: tuple[Turn, ...]
    begun: str

    def reply(self, answer: AnswerWaiter) -> Turn:
        """Return the turn that an answer makes."""
        return Turn(
            "assistant", self.begun + (answer.value or ""), _calls(answer.details.tool_calls)
        )


def conversation_of(call: wire.CallNode) -> Conversation | None:
    """Return what a call goes on with; None if it is no chat."""
    if call.messages is None:
        return None
    *before, last = call.messages
    return Conversation(
        tuple(Turn(m.role, text_of(m.content), _details(m)) for m in before),
        text_of(last.content),
    )


def text_of(content: wire.PromptContent) -> str:
    """Return the constant text of a content."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, wire.TextSegment))


def num_chars(call: wire.CallNode) -> int:
    """Return how much text a call brings with it."""
    if call.messages is None:
        return len(text_of(call.prompt or ""))
    return sum(len(text_of(message.content)) for message in call.messages)


def renamed(call: wire.CallNode, name: str) -> wire.CallNode:
    """Return a call, and the output at its end, under another name."""
    output = wire.OutputSegment(variable=name)
    if call.messages is None:
        assert isinstance(call.prompt, tuple)
        return call.model_copy(update={"name": name, "prompt": (*call.prompt[:-1], output)})
    last = call.messages[-1]
    assert isinstance(last.content, tuple)
    last = last.model_copy(update={"content": (*last.content[:-1], output)})
    return call.model_copy(update={"name": name, "messages": (*call.messages[:-1], last)})


def _details(message: wire.Message) -> str:
    called = _calls(message.tool_calls)
    return called if message.tool_call_id is None else f"{called}{message.tool_call_id}"


def _calls(calls: Iterable[wire.ToolCall | ToolCall]) -> str:
    return "".join(f"{call.id!r}{call.name!r}{call.arguments!r}" for call in calls)
