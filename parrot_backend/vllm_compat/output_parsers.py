"""Makes vLLM's parsers of tool calls and reasoning, as its own chat server does.

A parser is made for each request. It first changes the request, so that the model can write
nothing but calls where calls are forced. Forced calls need no parser made for the model: without
one they are written as plain JSON.
"""

from __future__ import annotations

from typing import Any

from parrot_backend.errors import EngineError
from parrot_backend.vllm_compat.output_parser import OutputParser, ParsedChat
from parrot_backend.vllm_compat.records import Rejected


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


def _known_parsers() -> str:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    tools = ", ".join(ToolParserManager.list_registered())
    reasoning = ", ".join(ReasoningParserManager.list_registered())
    return f"parsers of tool calls are {tools}; of reasoning {reasoning}"
