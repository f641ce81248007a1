"""Replies of the Responses API: the core's answer in, ``response`` bodies out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.events import RequestUsage
from parrot_backend.server.openai.responses import ResponseRequest
from parrot_backend.server.openai.usage import chat_logprobs


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What every state of a response tells.

    Attributes:
        key: What ids are made of.
        created_s: Unix time.
        model: The model as the caller named it.
        request: What was asked for.
    """

    key: str
    created_s: int
    model: str
    request: ResponseRequest

    def body(
        self,
        status: str,
        output: list[dict[str, Any]],
        usage: RequestUsage | None = None,
        error: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return a response in a state."""
        request = self.request
        echoed = request.model_dump(
            mode="json",
            exclude_none=True,
            by_alias=True,
            include={"tools", "tool_choice", "text", "reasoning", "max_output_tokens"},
        )
        return {
            "id": f"resp_{self.key}",
            "object": "response",
            "created_at": self.created_s,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "instructions": request.instructions,
            "metadata": request.metadata or {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "store": False,
            "truncation": "disabled",
            "user": request.user,
            "usage": None if usage is None else _usage(usage),
            "tools": [],
            "tool_choice": "auto",
            "text": {"format": {"type": "text"}},
            **echoed,
        }

    def message(self, text: str, status: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
        """Return the item that is the model's text."""
        content = [] if status == "in_progress" else [text_part(text, logprobs)]
        return {
            "id": f"msg_{self.key}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def reasoning(self, text: str, status: str) -> dict[str, Any]:
        """Return the item that is what the model thought."""
        content = [] if status == "in_progress" else [{"type": "reasoning_text", "text": text}]
        return {
            "id": f"rs_{self.key}",
            "type": "reasoning",
            "summary": [],
            "status": status,
            "content": content,
        }

    def calls(self, answer: AnswerWaiter) -> list[dict[str, Any]]:
        """Return the items that are calls of tools."""
        return [
            {
                "id": f"fc_{self.key}.{number}",
                "type": "function_call",
                "status": "completed",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }
            for number, call in enumerate(answer.details.tool_calls)
        ]

    def whole(self, answer: AnswerWaiter) -> dict[str, Any]:
        """Return the response to an answer with a value."""
        status = status_of(answer)
        output = []
        if answer.details.reasoning is not None:
            output.append(self.reasoning(answer.details.reasoning, "completed"))
        calls = self.calls(answer)
        if answer.value or not calls:
            output.append(self.message(answer.value or "", status, logprobs_of(answer)))
        return self.body(status, output + calls, answer.usage)


def status_of(answer: AnswerWaiter) -> str:
    """Return how a response ended."""
    return "incomplete" if answer.finish_reason == "length" else "completed"


def logprobs_of(answer: AnswerWaiter) -> list[Any] | None:
    """Return the log probabilities of an answer, if they were asked for."""
    told = chat_logprobs(answer.details.logprobs)
    return None if told is None else told["content"]


def text_part(text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    """Return the part of a message that is its text."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return part if logprobs is None else {**part, "logprobs": logprobs}


def _usage(usage: RequestUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        # Engines do not tell how many of them were thoughts.
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
