"""Replies to completions: the core's answers in, ``text_completion`` bodies out. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from parrot_backend.core.chat import TokenLogprob
from parrot_backend.core.commands import AnswerWaiter, StreamText
from parrot_backend.server.openai.reply import DONE, Head, LogprobCounter, data_event, error_events
from parrot_backend.server.openai.usage import completion_logprobs, usage_of

_KIND = "text_completion"


class CompletionReply:
    """Writes the reply to one request, whole or as chunks.

    Args:
        head: What stands in front.
        echoes: The prompts, if they are to be repeated in front of their texts, else empty.
        num_choices: How many choices there are of each prompt.
        includes_usage: A stream ends with what it took.
    """

    def __init__(
        self,
        head: Head,
        echoes: Sequence[str],
        num_choices: int,
        *,
        includes_usage: bool = False,
    ) -> None:
        self._head = head
        self._echoes = echoes
        self._num_choices = num_choices
        self._includes_usage = includes_usage
        self._logprobs = LogprobCounter()
        self._offsets: dict[int, int] = {}
        # A chunk is written for every token, so what is the same in all is written once.
        fields = json.dumps(head.fields(_KIND), separators=(",", ":"))
        no_usage = ',"usage":null' if includes_usage else ""
        self._before_index = f'data: {fields[:-1]},"choices":[{{"index":'
        self._after_text = f',"logprobs":null,"finish_reason":null}}]{no_usage}}}\n\n'

    def whole(self, answers: Sequence[AnswerWaiter]) -> dict[str, Any]:
        """Return the body of a reply."""
        return {
            **self._head.fields(_KIND),
            "choices": [
                self._choice(number, answer, self._echo(number) + (answer.value or ""))
                for number, answer in enumerate(answers)
            ],
            "usage": usage_of(answers, self._num_choices),
        }

    def begin(self) -> str:
        """Return the prompts that are to be repeated."""
        num_choices = len(self._echoes) * self._num_choices
        return "".join(self._text(number, self._echo(number)) for number in range(num_choices))

    def text(self, choice: int, message: StreamText) -> str:
        """Return a chunk with more text."""
        logprobs = self._logprobs.with_text(choice, message)
        if logprobs is None:
            return self._text(choice, message.text)
        return self._chunk(self._choice_chunk(choice, message.text, logprobs, None))

    def answer(self, choice: int, answer: AnswerWaiter) -> str:
        """Return the log probabilities of a choice, and why it ended."""
        rest = self._logprobs.rest(choice, answer)
        return self._chunk(self._choice_chunk(choice, "", rest, answer.finish_reason or "stop"))

    def end(self, answers: Sequence[AnswerWaiter]) -> str:
        """Return what the request took, if that was asked for, and the end."""
        if not self._includes_usage:
            return DONE
        usage = usage_of(answers, self._num_choices)
        return data_event({**self._head.fields(_KIND), "choices": [], "usage": usage}) + DONE

    def error(self, body: bytes) -> str:
        """Return the end of a stream that cannot go on."""
        return error_events(body)

    def _chunk(self, choice: dict[str, Any]) -> str:
        told = {"usage": None} if self._includes_usage else {}
        return data_event({**self._head.fields(_KIND), "choices": [choice], **told})

    def _choice_chunk(
        self,
        choice: int,
        text: str,
        logprobs: tuple[TokenLogprob, ...] | None,
        finish_reason: str | None,
    ) -> dict[str, Any]:
        offset = self._offsets.get(choice, 0)
        if logprobs is not None:
            self._offsets[choice] = offset + sum(len(one.token) for one in logprobs)
        return {
            "index": choice,
            "text": text,
            "logprobs": completion_logprobs(logprobs, offset),
            "finish_reason": finish_reason,
        }

    def _text(self, choice: int, text: str) -> str:
        return f'{self._before_index}{choice},"text":{json.dumps(text)}{self._after_text}'

    def _echo(self, choice: int) -> str:
        return self._echoes[choice // self._num_choices] if self._echoes else ""

    def _choice(self, number: int, answer: AnswerWaiter, text: str) -> dict[str, Any]:
        return {
            "index": number,
            "text": text,
            "logprobs": completion_logprobs(answer.details.logprobs),
            "finish_reason": answer.finish_reason or "stop",
        }
