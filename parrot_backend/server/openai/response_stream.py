"""Events of the Responses API while a response is generated. Pure but for counting its events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from parrot_backend.core.chat import TokenLogprob
from parrot_backend.core.commands import AnswerWaiter, StreamText
from parrot_backend.server.openai.reply import LogprobCounter
from parrot_backend.server.openai.response_reply import (
    ResponseHead,
    status_of,
    text_part,
)
from parrot_backend.server.openai.usage import chat_logprobs


class ResponseReply:
    """Writes the reply to one request, whole or as events.

    A response is a list of items. Thoughts and text are one item each; which one is open shows in
    ``_open``, and its text so far in ``_texts``. ``_logprobs`` are those that no item has yet:
    thoughts have no place for theirs, so these come with the text after them.

    Args:
        head: What every state of the response tells.
    """

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._num_events = 0
        self._done: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._texts: list[str] = []
        self._counter = LogprobCounter()
        self._logprobs: list[Any] = []
        self._status = "completed"

    def whole(self, answers: Sequence[AnswerWaiter]) -> dict[str, Any]:
        """Return the body of a reply."""
        return self._head.whole(answers[0])

    def begin(self) -> str:
        """Return the events that announce the response."""
        response = self._head.body("in_progress", [])
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def text(self, choice: int, message: StreamText) -> str:
        """Return more text or reasoning."""
        events = ""
        kind = "reasoning" if message.is_reasoning else "message"
        if self._open is None or self._open["type"] != kind:
            events = self._close() + self._begin_item(kind)
        self._texts.append(message.text)
        told = _told(self._counter.with_text(choice, message))
        self._logprobs += told
        if kind == "reasoning":
            return events + self._part_event("response.reasoning_text.delta", delta=message.text)
        return events + self._part_event(
            "response.output_text.delta", delta=message.text, logprobs=told
        )

    def answer(self, choice: int, answer: AnswerWaiter) -> str:
        """Return the rest of the items."""
        self._logprobs += _told(self._counter.rest(choice, answer))
        self._status = status_of(answer)
        calls = self._head.calls(answer)
        has_text = any(
            item["type"] == "message" for item in (*self._done, self._open or {}) if item
        )
        events = ""
        if not has_text and not calls:
            events = self._close() + self._begin_item("message")
        events += self._close(has_logprobs=answer.details.logprobs is not None)
        return events + "".join(map(self._call, calls))

    def end(self, answers: Sequence[AnswerWaiter]) -> str:
        """Return the event with the whole response."""
        response = self._head.body(self._status, self._done, answers[0].usage)
        return self._event(f"response.{self._status}", response=response)

    def error(self, body: bytes) -> str:
        """Return the events of a response that failed; clients know it from its first events."""
        begin = "" if self._num_events else self.begin()
        error = from_json(body)["error"]
        told = {"code": "server_error", "message": error["message"]}
        failed = self._head.body("failed", self._done, error=told)
        return begin + self._event("response.failed", response=failed)

    def _begin_item(self, kind: str) -> str:
        head = self._head
        item = (head.reasoning if kind == "reasoning" else head.message)("", "in_progress")
        self._open, self._texts = item, []
        part = {"type": "reasoning_text", "text": ""} if kind == "reasoning" else text_part("", [])
        added = self._event("response.output_item.added", output_index=len(self._done), item=item)
        return added + self._part_event("response.content_part.added", part=part)

    def _close(self, *, has_logprobs: bool = False) -> str:
        """Return the end of the open item, if there is one.

        Args:
            has_logprobs: They were asked for, even if there are none.
        """
        if self._open is None:
            return ""
        text = "".join(self._texts)
        if self._open["type"] == "reasoning":
            item = self._head.reasoning(text, "completed")
            events = self._part_event("response.reasoning_text.done", text=text)
        else:
            logprobs, self._logprobs = self._logprobs, []
            told = logprobs if logprobs or has_logprobs else None
            item = self._head.message(text, self._status, told)
            events = self._part_event("response.output_text.done", text=text, logprobs=logprobs)
        events += self._part_event("response.content_part.done", part=item["content"][0])
        return events + self._end_item(item)

    def _end_item(self, item: dict[str, Any]) -> str:
        done = self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)
        self._open = None
        return done

    def _call(self, item: dict[str, Any]) -> str:
        arguments = item["arguments"]
        begun = {**item, "arguments": "", "status": "in_progress"}
        place = {"item_id": item["id"], "output_index": len(self._done)}
        name = "response.function_call_arguments"
        return (
            self._event("response.output_item.added", output_index=len(self._done), item=begun)
            + self._event(f"{name}.delta", **place, delta=arguments)
            + self._event(f"{name}.done", **place, arguments=arguments, name=item["name"])
            + self._end_item(item)
        )

    def _part_event(self, kind: str, **fields: object) -> str:
        assert self._open is not None
        place = {"item_id": self._open["id"], "output_index": len(self._done), "content_index": 0}
        return self._event(kind, **place, **fields)

    def _event(self, kind: str, **fields: object) -> str:
        content = {"type": kind, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return f"event: {kind}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"


def _told(places: tuple[TokenLogprob, ...] | None) -> list[Any]:
    told = chat_logprobs(places)
    return [] if told is None else told["content"]
