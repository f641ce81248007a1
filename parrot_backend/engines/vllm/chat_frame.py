"""All of a chat but the contents of its messages: what a template's layout depends on. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_backend.core.chat import NO_CHAT, NO_HEAD, ChatOptions, MessageHead
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.engines.chat_history import head_fields, tools_of


@dataclass(frozen=True, slots=True)
class MessageFrame:
    """One message without its content.

    Attributes:
        role: Its role.
        head: What else it has.
        is_empty: It has calls of tools and no content. Templates write no place for one then.
    """

    role: str
    head: MessageHead = NO_HEAD
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """A chat without the contents; equal ones have equal layouts.

    Attributes:
        messages: The messages.
        options: Tools and further arguments of the template, and nothing else.
    """

    messages: tuple[MessageFrame, ...]
    options: ChatOptions = NO_CHAT

    def template_messages(self, marker: Callable[[int], str]) -> list[dict[str, Any]]:
        """Return the messages as templates want them, with a marker for each content."""
        return [
            {
                "role": message.role,
                "content": "" if message.is_empty else marker(index),
                **_template_fields(message.head),
            }
            for index, message in enumerate(self.messages)
        ]

    def template_options(self) -> dict[str, Any]:
        """Return the further arguments of the template."""
        tools = {"tools": tools_of(self.options)} if self.options.tools else {}
        return {**dict(self.options.template_kwargs), **tools}


#: Parts of a message with their positions among all parts.
Content = list[tuple[PromptPart, int]]


def take_apart(
    parts: Sequence[PromptPart], chat: ChatOptions
) -> tuple[ChatFrame, list[Content], bool]:
    """Return the frame of a chat, its contents, and whether the reply goes on with the last one.

    A last message of the assistant's without text is what the reply will be; it is left out.
    """
    heads: list[tuple[str, MessageHead]] = []
    contents: list[Content] = []
    for position, part in enumerate(parts):
        if part.kind is PartKind.ROLE:
            heads.append((part.text, part.head))
            contents.append([])
        else:
            contents[-1].append((part, position))
    has_text = [any(part.text for part, _ in content) for content in contents]
    last_role, last_head = heads[-1]
    is_open = last_role == "assistant" and not last_head.tool_calls
    continues_last = is_open and has_text[-1]
    if is_open and not continues_last:
        heads.pop()
    messages = (
        MessageFrame(role, head, is_empty=bool(head.tool_calls) and not filled)
        for (role, head), filled in zip(heads, has_text, strict=False)
    )
    options = ChatOptions(chat.tools, template_kwargs=chat.template_kwargs)
    return ChatFrame(tuple(messages), options), contents, continues_last


def _template_fields(head: MessageHead) -> dict[str, Any]:
    fields = head_fields(head)
    for call in fields.get("tool_calls", ()):
        function = call["function"]
        function["arguments"] = _decoded(function["arguments"])
    return fields


def _decoded(arguments: str) -> dict[str, Any]:
    """Return arguments as templates want them, decoded.

    What is no JSON object becomes an empty one, as in vLLM's own server: the model wrote it, and
    the conversation is to go on.
    """
    try:
        decoded = json.loads(arguments)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
