"""vLLM's parsers of tool calls and reasoning, as its own chat server uses them.

A parser is made for each request. It first changes the request, so that the model can write
nothing but calls where calls are forced; then it takes the output apart while it comes. Forced
calls need no parser made for the model: without one they are written as plain JSON.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_backend.core.chat import OutputDetails, ToolCall
from parrot_backend.errors import EngineError
from parrot_backend.vllm_compat.records import Constraint, Piece, Rejected

logger = logging.getLogger(__name__)


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
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    template_kwargs: dict[str, Any]
    may_reason: bool
    prompt_ids: list[int]


class OutputParsers:
    """Makes the parsers of one engine.

    Args:
        client: Its ``AsyncLLM``.
        tool_parser: Name of vLLM's parser of tool calls, or None.
        reasoning_parser: Name of vLLM's parser of reasoning, or None.

    Attributes:
        finds_tool_calls: Whether calls of tools are found in free text.
        finds_reasoning: Whether reasoning is told apart.

    Raises:
        EngineError: ``engine_start_failed``: there is no such parser, or it does not fit the
            model's tokenizer.
    """

    def __init__(self, client: Any, tool_parser: str | None, reasoning_parser: str | None) -> None:
        self._tokenizer = client.get_tokenizer()
        self._model_config = client.vllm_config.model_config
        self._names = (tool_parser, reasoning_parser)
        self.finds_tool_calls = tool_parser is not None
        self.finds_reasoning = reasoning_parser is not None
        self._classes: dict[tuple[bool, bool], Any] = {}
        try:
            for has_tools in {False, self.finds_tool_calls}:
                for has_reasoning in {False, self.finds_reasoning}:
                    self._class(has_tools, has_reasoning)
        except (AssertionError, TypeError, ValueError) as exc:
            raise EngineError("engine_start_failed", f"{exc}: {_known_parsers()}") from exc

    def make(self, chat: ParsedChat, structured: Any) -> OutputParser:
        """Return the parser of one output.

        Args:
            chat: The chat.
            structured: The form that was asked for (``StructuredOutputsParams``), or None.

        Raises:
            Rejected: ``invalid_format``: vLLM cannot make calls of these tools.
        """
        parser_class = self._class(bool(chat.tools), chat.may_reason)
        try:
            request = _request(chat, structured)
            # Parsers keep state: one follows the output, the other reads it as a whole at the end.
            following = self._new(parser_class, request, chat)
            reading = self._new(parser_class, request, chat)
            return OutputParser(following, reading, following.adjust_request(request), chat)
        except Exception as exc:
            raise Rejected("invalid_format", f"vLLM's parser refuses this chat: {exc}") from exc

    def _class(self, has_tools: bool, has_reasoning: bool) -> Any:
        key = (has_tools, has_reasoning)
        if key not in self._classes:
            self._classes[key] = self._compose(*key)
        return self._classes[key]

    def _compose(self, has_tools: bool, has_reasoning: bool) -> Any:
        from vllm.parser import ParserManager
        from vllm.parser.abstract_parser import DelegatingParser
        from vllm.tool_parsers import ToolParser

        tool_parser, reasoning_parser = self._names
        if has_tools and tool_parser is None:
            # The base class knows the JSON that forced calls are written in, and no more.
            reasoning = ParserManager.get_reasoning_parser(
                reasoning_parser if has_reasoning else None
            )
            parts = {"tool_parser_cls": ToolParser, "reasoning_parser_cls": reasoning}
            return type("ForcedCallsParser", (DelegatingParser,), parts)
        return ParserManager.get_parser(
            tool_parser_name=tool_parser if has_tools else None,
            reasoning_parser_name=reasoning_parser if has_reasoning else None,
            enable_auto_tools=True,
            model_name=self._model_config.model,
            tokenizer=self._tokenizer,
        )

    def _new(self, parser_class: Any, request: Any, chat: ParsedChat) -> Any:
        parser = parser_class(
            self._tokenizer,
            request.tools,
            chat_template_kwargs=chat.template_kwargs,
            model_config=self._model_config,
        )
        parser.set_prompt_token_ids(chat.prompt_ids)
        return parser


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
        calls = [self._calls[index].finished() for index in sorted(self._calls)]
        rest: list[Piece] = []
        if not (calls and is_cut):
            reasoning, content, read = self._read()
            calls = read or calls
            rest = self._saying(self._unsaid(reasoning or "", content or ""))
        if not self._chat.parallel_tool_calls:
            calls = calls[:1]
        return rest, OutputDetails(tool_calls=tuple(calls), reasoning=self._said[True] or None)

    def _read(self) -> tuple[str | None, str | None, list[ToolCall]]:
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
            return None, None, []
        made = [
            ToolCall(call.id or make_tool_call_id(), call.name, call.arguments)
            for call in calls or ()
        ]
        return reasoning, content, made if all(map(_is_complete, made)) else []

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


def _request(chat: ParsedChat, structured: Any) -> Any:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    # A forced call is a form of its own, which its arguments keep to as to any other.
    is_forced = bool(chat.tools) and chat.tool_choice != "auto"
    given = [_strict(tool) for tool in chat.tools] if is_forced else chat.tools
    tools = {"tools": given, "tool_choice": chat.tool_choice} if given else {}
    request = ChatCompletionRequest.model_validate(
        {
            "messages": chat.messages,
            "stream": True,
            "parallel_tool_calls": chat.parallel_tool_calls,
            "chat_template_kwargs": chat.template_kwargs or None,
            **tools,
        }
    )
    # Set afterwards: the request's own check refuses some pairs that work.
    request.structured_outputs = None if is_forced else structured
    return request


def _strict(tool: dict[str, Any]) -> dict[str, Any]:
    return {**tool, "function": {**tool["function"], "strict": True}}


def _is_complete(call: ToolCall) -> bool:
    try:
        json.loads(call.arguments)
    except ValueError:
        return False
    return True


def _known_parsers() -> str:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    tools = ", ".join(ToolParserManager.list_registered())
    reasoning = ", ".join(ReasoningParserManager.list_registered())
    return f"parsers of tool calls are {tools}; of reasoning {reasoning}"
