"""What the client tells AutoGen's event log of its calls, in the words of OpenAI's API.

AutoGen's own clients tell the same; what counts tokens reads it there.
"""

from __future__ import annotations

import logging
from typing import Any

from autogen_core import EVENT_LOGGER_NAME
from autogen_core.logging import LLMCallEvent, LLMStreamEndEvent, LLMStreamStartEvent
from autogen_core.models import CreateResult

from parrot_integrations.planning.calls import ChatMessage, ModelCall

_log = logging.getLogger(EVENT_LOGGER_NAME)


def tell_call(call: ModelCall, result: CreateResult) -> None:
    """Tell of a call that was answered."""
    if _log.isEnabledFor(logging.INFO):
        _log.info(LLMCallEvent(**_of_call(call), **_of_result(result)))


def tell_stream_start(call: ModelCall) -> None:
    """Tell of a stream that begins."""
    if _log.isEnabledFor(logging.INFO):
        _log.info(LLMStreamStartEvent(**_of_call(call)))


def tell_stream_end(result: CreateResult) -> None:
    """Tell of a stream that has come to its end."""
    if _log.isEnabledFor(logging.INFO):
        _log.info(LLMStreamEndEvent(**_of_result(result)))


def _of_call(call: ModelCall) -> dict[str, Any]:
    tools = [
        {"type": "function", "function": tool.model_dump(mode="json")}
        for tool in call.options.tools
    ]
    messages = [_message(message) for message in call.messages or ()]
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _of_result(result: CreateResult) -> dict[str, Any]:
    return {
        "response": result.model_dump(mode="json"),
        "prompt_tokens": result.usage.prompt_tokens,
        "completion_tokens": result.usage.completion_tokens,
    }


def _message(message: ChatMessage) -> dict[str, Any]:
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in message.tool_calls
    ]
    rest = {"name": message.name, "tool_calls": calls, "tool_call_id": message.tool_call_id}
    told = {key: value for key, value in rest.items() if value}
    return {"role": message.role, "content": message.content, **told}
