"""Wire to core: tools, message heads and forms of outputs. Pure."""

from __future__ import annotations

import json
from typing import Any, assert_never

from parrot_backend import protocol as wire
from parrot_backend.core import chat as core
from parrot_backend.errors import RequestError

#: Longest schema, pattern or grammar; engines compile them.
MAX_FORMAT_CHARS = 64 * 2**10

#: Most choices that an output may be one of.
MAX_CHOICES = 1000

#: Longest names, descriptions and schemas of a call's tools together; they stand in its prompt.
MAX_TOOLS_CHARS = 256 * 2**10

#: What renders a template takes these for itself. A template of the client's own is among them.
_RESERVED = frozenset(
    (
        *("conversation", "messages", "tools", "documents", "chat_template", "tokenize"),
        *("add_generation_prompt", "continue_final_message", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        "tokenizer_kwargs",
    )
)


def chat_options(node: wire.CallNode, num_outputs: int) -> core.ChatOptions:
    """Return how a call's chat is put to the model.

    Raises:
        RequestError: ``misplaced_tools``, ``duplicate_tool``, ``unknown_tool``, ``unsupported`` or
            ``tools_too_large``.
    """
    where = f"call {node.name!r}"
    _check_tools(node, num_outputs, where)
    reserved = _RESERVED.intersection(node.chat_template_kwargs)
    if reserved:
        names = ", ".join(sorted(reserved))
        raise RequestError("unsupported", f"{where}: chat_template_kwargs may not set {names}")
    choice = node.tool_choice
    return core.ChatOptions(
        tools=_tools(node, where),
        tool_choice=core.NamedTool(choice.name) if isinstance(choice, wire.NamedTool) else choice,
        parallel_tool_calls=node.parallel_tool_calls,
        template_kwargs=tuple(node.chat_template_kwargs.items()),
    )


def message_head(message: wire.Message) -> core.MessageHead:
    """Return what a message has beside its role and content."""
    calls = (core.ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls)
    head = core.MessageHead(message.name, tuple(calls), message.tool_call_id)
    return core.NO_HEAD if head == core.NO_HEAD else head


def response_format(wanted: wire.ResponseFormat | None) -> core.ResponseFormat | None:
    """Return the form that an output must have.

    Raises:
        RequestError: ``format_too_large``.
    """
    if isinstance(wanted, wire.ChoiceFormat) and len(wanted.choices) > MAX_CHOICES:
        raise _too_large(f"{len(wanted.choices)} choices", MAX_CHOICES)
    form = _form(wanted)
    if form is not None and len(form.text) > MAX_FORMAT_CHARS:
        raise _too_large(f"{len(form.text)} characters", MAX_FORMAT_CHARS)
    return form


def _form(wanted: wire.ResponseFormat | None) -> core.ResponseFormat | None:
    match wanted:
        case None:
            return None
        case wire.JsonSchemaFormat():
            return core.ResponseFormat("json_schema", _json(wanted.json_schema))
        case wire.JsonObjectFormat():
            return core.ResponseFormat("json_object")
        case wire.RegexFormat():
            return core.ResponseFormat("regex", wanted.pattern)
        case wire.ChoiceFormat():
            return core.ResponseFormat("choice", _json(wanted.choices))
        case wire.GrammarFormat():
            return core.ResponseFormat("grammar", wanted.grammar)
    assert_never(wanted)


def _check_tools(node: wire.CallNode, num_outputs: int, where: str) -> None:
    choice = node.tool_choice
    if not node.tools:
        if choice == "required" or isinstance(choice, wire.NamedTool):
            raise RequestError("unknown_tool", f"{where}: tool_choice without tools")
        return
    if num_outputs != 1:
        message = f"{where}: tools need exactly one output, not {num_outputs}"
        raise RequestError("misplaced_tools", message)
    names = [tool.name for tool in node.tools]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise RequestError("duplicate_tool", f"{where}: there are two tools named {repeated!r}")
    if isinstance(choice, wire.NamedTool) and choice.name not in names:
        message = f"{where}: tool_choice names {choice.name!r}, but the tools are {names}"
        raise RequestError("unknown_tool", message)


def _tools(node: wire.CallNode, where: str) -> tuple[core.Tool, ...]:
    tools = tuple(_tool(tool) for tool in node.tools)
    chars = sum(len(t.name) + len(t.description) + len(t.parameters) for t in tools)
    if chars > MAX_TOOLS_CHARS:
        message = f"{where}: the tools have {chars} characters, {MAX_TOOLS_CHARS} are allowed"
        raise RequestError("tools_too_large", message, limit=MAX_TOOLS_CHARS)
    return tools


def _too_large(what: str, limit: int) -> RequestError:
    message = f"the response_format has {what}, {limit} are allowed"
    return RequestError("format_too_large", message, limit=limit)


def _tool(tool: wire.Tool) -> core.Tool:
    return core.Tool(tool.name, tool.description, _json(tool.parameters))


def _json(content: Any) -> str:
    # The order of the keys is kept: models write the properties of a schema in its order.
    try:
        return json.dumps(content, ensure_ascii=False)
    except RecursionError as exc:
        raise RequestError("format_too_large", "a schema is nested too deeply") from exc
