"""Replies to chats: the core's answers in, ``chat.completion`` bodies and chunks out. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from parrot_backend.core.chat import TokenLogprob, ToolCall
from parrot_backend.core.commands import AnswerWaiter, StreamText
from parrot_backend.server.openai.reply import DONE, Head, LogprobCounter, data_event, error_events
from parrot_backend.server.openai.usage import chat_logprobs, usage_of


class ChatReply:
    """Writes the reply to one request, whole or as chunks.

    Args:
        head: What stands in front.
        num_choices: How many choices there are.
        includes_usage: A stream ends with what it took.
        names_tool: One certain tool had to be called.
        includes_reasoning: Thoughts before the text are told.
    """

    def __init__(
        self,
        head: Head,
        num_choices: int,
        *,
        includes_usage: bool = False,
        names_tool: bool = False,
        includes_reasoning: bool = True,
    ) -> None:
        self._head = head
        self._num_choices = num_choices
        self._includes_usage = includes_usage
        self._names_tool = names_tool
        self._includes_reasoning = includes_reasoning
        self._logprobs = LogprobCounter()
        # A chunk of text is written for every token, so what is the same in all is written once.
        fields = json.dumps(head.fields("chat.completion.chunk"), separators=(",", ":"))
        self._before_index = f'data: {fields[:-1]},"choices":[{{"index":'
        self._no_usage = ',"usage":null' if includes_usage else ""
        self._after_delta = f',"logprobs":null,"finish_reason":null}}]{self._no_usage}}}\n\n'

    def whole(self, answers: Sequence[AnswerWaiter]) -> dict[str, Any]:
        """Return the body of a reply."""
        return {
            **self._head.fields("chat.completion"),
            "choices": [self._choice(number, answer) for number, answer in enumerate(answers)],
            "usage": usage_of(answers, self._num_choices),
        }

    def begin(self) -> str:
        """Return the first chunk of each choice: who speaks."""
        return "".join(
            f'{self._before_index}{number},"delta":{{"role":"assistant","content":""}}'
            f"{self._after_delta}"
            for number in range(self._num_choices)
        )

    def text(self, choice: int, message: StreamText) -> str:
        """Return a chunk with more text or reasoning."""
        if message.is_reasoning and not self._includes_reasoning:
            return ""
        field = "reasoning" if message.is_reasoning else "content"
        logprobs = self._logprobs.with_text(choice, message)
        if logprobs is not None:
            delta = {field: message.text}
            return self._chunk([self._choice_chunk(choice, delta, logprobs, None)], None)
        return (
            f'{self._before_index}{choice},"delta":{{"{field}":{json.dumps(message.text)}}}'
            f"{self._after_delta}"
        )

    def answer(self, choice: int, answer: AnswerWaiter) -> str:
        """Return the calls of tools and the log probabilities of a choice, and why it ended."""
        details = answer.details
        chunks = ""
        if details.tool_calls:
            calls = [{"index": at, **_call(call)} for at, call in enumerate(details.tool_calls)]
            chunks += (
                f'{self._before_index}{choice},"delta":{json.dumps({"tool_calls": calls})}'
                f"{self._after_delta}"
            )
        rest = self._logprobs.rest(choice, answer)
        end = self._choice_chunk(choice, {}, rest, self._finish_reason(answer))
        return chunks + self._chunk([end], None)

    def end(self, answers: Sequence[AnswerWaiter]) -> str:
        """Return what the request took, if that was asked for, and the end."""
        if not self._includes_usage:
            return DONE
        return self._chunk([], usage_of(answers, self._num_choices)) + DONE

    def error(self, body: bytes) -> str:
        """Return the end of a stream that cannot go on."""
        return error_events(body)

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> str:
        told = {"usage": usage} if self._includes_usage else {}
        fields = self._head.fields("chat.completion.chunk")
        return data_event({**fields, "choices": choices, **told})

    def _choice_chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: tuple[TokenLogprob, ...] | None,
        finish_reason: str | None,
    ) -> dict[str, Any]:
        return {
            "index": choice,
            "delta": delta,
            "logprobs": chat_logprobs(logprobs),
            "finish_reason": finish_reason,
        }

    def _choice(self, number: int, answer: AnswerWaiter) -> dict[str, Any]:
        details = answer.details
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.value or (None if details.tool_calls else ""),
            "refusal": None,
        }
        if details.tool_calls:
            message["tool_calls"] = [_call(call) for call in details.tool_calls]
        if details.reasoning is not None and self._includes_reasoning:
            message["reasoning"] = details.reasoning
        return {
            "index": number,
            "message": message,
            "logprobs": chat_logprobs(details.logprobs),
            "finish_reason": self._finish_reason(answer),
        }

    def _finish_reason(self, answer: AnswerWaiter) -> str:
        # OpenAI says so of a call that was not the model's own wish.
        if answer.finish_reason == "tool_calls" and self._names_tool:
            return "stop"
        return answer.finish_reason or "stop"


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
