"""Parts of a chat as messages and tools in the form of OpenAI's API. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from parrot_backend.core.chat import ChatOptions, MessageHead, NamedTool, ToolChoice
from parrot_backend.core.prompt import PartKind, PromptPart


def is_chat(parts: Sequence[PromptPart]) -> bool:
    """Tell whether a prompt is a chat."""
    return bool(parts) and parts[0].kind is PartKind.ROLE


def messages_of(parts: Sequence[PromptPart]) -> list[dict[str, Any]]:
    """Return the messages of a chat."""
    messages: list[dict[str, Any]] = []
    for part in parts:
        if part.kind is PartKind.ROLE:
            messages.append({"role": part.text, "content": "", **head_fields(part.head)})
        else:
            messages[-1]["content"] += part.text
    return messages


def open_messages(parts: Sequence[PromptPart]) -> tuple[list[dict[str, Any]], bool]:
    """Return the messages of a chat, and whether the reply goes on with the last one.

    A last message of the assistant's without text is what the reply will be; it is left out.
    """
    messages = messages_of(parts)
    last = messages[-1]
    is_open = last["role"] == "assistant" and "tool_calls" not in last
    if is_open and not last["content"]:
        return messages[:-1], False
    return messages, is_open


def head_fields(head: MessageHead) -> dict[str, Any]:
    """Return the fields of a message beside role and content."""
    fields: dict[str, Any] = {}
    if head.name is not None:
        fields["name"] = head.name
    if head.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in head.tool_calls
        ]
    if head.tool_call_id is not None:
        fields["tool_call_id"] = head.tool_call_id
    return fields


def tools_of(chat: ChatOptions) -> list[dict[str, Any]]:
    """Return the tools of a chat."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters),
            },
        }
        for tool in chat.tools
    ]


def tool_choice_of(choice: ToolChoice) -> str | dict[str, Any]:
    """Return the choice of tools."""
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice
