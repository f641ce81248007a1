"""Takes one output apart with vLLM's parsers: calls of tools, reasoning, and text.

vLLM has two ways to parse: one follows the output while it comes, the other reads it as a whole.
Both are used, because the first may keep back at the end what did not become a call after all. An
output that comes whole is only read, as on vLLM's own server, unless half a call may be in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_backend.core.chat import OutputDetails, ToolCall
from parrot_backend.vllm_compat.records import Constraint, Piece, Rejected

logger = logging.getLogger(__name__)

#: Reasoning, text and calls of an output as a whole; None for calls that are not complete.
_Found = tuple[str | None, str | None, list[ToolCall] | None]


@dataclass(frozen=True, slots=True)
class ParsedChat:
    """A chat whose output is to be parsed, in the form of OpenAI's API.

    Attributes:
        messages: The messages.
        tools: What the model may call; empty if it may call nothing.
        tool_choice: Whether it must.
        parallel_tool_calls: Whether it may make several calls.
        template_kwargs: Further arguments of the chat template.
        may_reason: The output may begin with reasoning, which the engine tells apart.
        prompt_ids: The prompt.
        comes_whole: Nobody reads the output before its end, so it comes in one piece.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    template_kwargs: dict[str, Any]
    may_reason: bool
    prompt_ids: list[int]
    comes_whole: bool = False


@dataclass(slots=True)
class _Call:
    """What has come of one call."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def finished(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments))


class OutputParser:
    """Takes one output apart.

    Args:
        following: vLLM's parser that follows the output.
        reading: Another one, that reads it as a whole.
        request: vLLM's request, changed by its parser.
        chat: What is parsed.

    Attributes:
        constraint: What vLLM is to be told of the output.
    """

    def __init__(self, following: Any, reading: Any, request: Any, chat: ParsedChat) -> None:
        self._following = following
        self._reading = reading
        self._request = request
        self._chat = chat
        self._raw: list[str] = []
        self._token_ids: list[int] = []
        self._said = {False: "", True: ""}
        self._calls: dict[int, _Call] = {}
        self.constraint = Constraint(
            structured=request.extract_structured_outputs(),
            skips_special_tokens=request.skip_special_tokens,
            reasoning=self._reasoning_arguments(),
        )

    def add(self, text: str, token_ids: Sequence[int], *, is_last: bool) -> list[Piece]:
        """Take in more of the output; return what is certain to be text or reasoning.

        Raises:
            Rejected: ``engine_failed``: vLLM's parser failed.
        """
        self._raw.append(text)
        self._token_ids += token_ids
        if self._chat.comes_whole:
            return []  # ``end`` reads it
        return self._follow(text, token_ids, is_last=is_last)

    def _follow(self, text: str, token_ids: Sequence[int], *, is_last: bool) -> list[Piece]:
        try:
            delta = self._following.parse_delta(
                text,
                list(token_ids),
                self._request,
                prompt_token_ids=self._chat.prompt_ids,
                finished=is_last,
            )
        except Exception as exc:
            message = f"vLLM's parser failed on the output: {exc!r}"
            raise Rejected("engine_failed", message) from exc
        if delta is None:
            return []
        self._collect(delta.tool_calls or ())
        pieces = [Piece(delta.reasoning or "", True), Piece(delta.content or "")]
        return self._saying(pieces)

    def end(self, *, is_cut: bool) -> tuple[list[Piece], OutputDetails]:
        """Return what was held back, and what there is beside the text.

        What parsers hold back at the end, because it might have become a call, is found by reading
        the output as a whole; what was said already stays as it is.

        Args:
            is_cut: The output ended at its limit: a call may be incomplete.
        """
        rest: list[Piece] = []
        found: _Found | None = None
        if self._chat.comes_whole:
            found = None if is_cut else self._read()
            if found is None or found[2] is None or (self._chat.tools and not found[2]):
                # Only who follows an output sees a call in it that is not complete.
                rest = self._follow("".join(self._raw), self._token_ids, is_last=True)
        calls = [self._calls[index].finished() for index in sorted(self._calls)]
        if not (calls and is_cut):
            reasoning, content, read = found or self._read()
            calls = read or calls
            rest += self._saying(self._unsaid(reasoning or "", content or ""))
        if not self._chat.parallel_tool_calls:
            calls = calls[:1]
        return rest, OutputDetails(tool_calls=tuple(calls), reasoning=self._said[True] or None)

    def _read(self) -> _Found:
        from vllm.renderers.chat_utils import make_tool_call_id

        try:
            reasoning, content, calls = self._reading.parse(
                "".join(self._raw),
                self._request,
                enable_auto_tools=True,
                model_output_token_ids=self._token_ids,
            )
        except Exception:
            logger.exception("vLLM's parser could not read the whole of an output")
            return None, None, None
        made = [
            ToolCall(call.id or make_tool_call_id(), call.name, call.arguments)
            for call in calls or ()
        ]
        return reasoning, content, made if all(map(_is_complete, made)) else None

    def _unsaid(self, reasoning: str, content: str) -> list[Piece]:
        said, thought = self._said[False], self._said[True]
        if not reasoning.startswith(thought) or not content.startswith(said):
            return []  # the two ways to parse disagree: what was streamed counts
        thoughts = [] if said else [Piece(reasoning[len(thought) :], True)]
        return [*thoughts, Piece(content[len(said) :])]

    def _saying(self, pieces: Sequence[Piece]) -> list[Piece]:
        said = [piece for piece in pieces if piece.text]
        for piece in said:
            self._said[piece.is_reasoning] += piece.text
        return said

    def _collect(self, deltas: Sequence[Any]) -> None:
        for delta in deltas:
            call = self._calls.setdefault(delta.index, _Call())
            call.id = call.id or delta.id or ""
            if delta.function is not None:
                call.name = call.name or delta.function.name or ""
                call.arguments.append(delta.function.arguments or "")

    def _reasoning_arguments(self) -> dict[str, Any]:
        if self._following.reasoning_parser is None:
            return {"reasoning_ended": True}
        ended = self._request.resolve_reasoning_ended(self._following, self._chat.prompt_ids)
        kwargs = {"chat_template_kwargs": self._chat.template_kwargs}
        return {"reasoning_ended": ended, "reasoning_parser_kwargs": kwargs}


def _is_complete(call: ToolCall) -> bool:
    try:
        json.loads(call.arguments)
    except ValueError:
        return False
    return True
