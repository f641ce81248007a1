"""``with_structured_output``: a model bound to a form of output, and the parser of that form.

With ``json_schema`` the engine lets the model generate nothing but what the schema admits, so that
the text always parses, unless it was cut off by ``max_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal, TypeAlias, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.output_parsers import (
    BaseGenerationOutputParser,
    BaseOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
)
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

Method = Literal["json_schema", "json_mode", "function_calling"]
Schema: TypeAlias = Mapping[str, Any] | type
_Parser = BaseOutputParser[Any] | BaseGenerationOutputParser[Any]


def structured(
    model: BaseChatModel,
    schema: Schema | None,
    *,
    method: str,
    include_raw: bool,
    strict: bool | None,
    bound: Mapping[str, Any],
) -> Runnable[LanguageModelInput, Any]:
    """Return a model whose output has a form, parsed.

    Args:
        model: The model.
        schema: What the output must be; None only for ``json_mode``.
        method: How the model is held to it.
        include_raw: Return the message and a parsing error, too, instead of raising that.
        strict: Passed to the conversion of the schema.
        bound: Further parameters of the calls.

    Raises:
        ValueError: The method is unknown, or needs a schema.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is one of {', '.join(get_args(Method))}, not {method!r}")
    if schema is None and method != "json_mode":
        raise ValueError(f"method {method} needs a schema")
    traced = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}}
    llm: Runnable[LanguageModelInput, Any]
    parser: _Parser
    if schema is not None and method == "function_calling":
        name = convert_to_openai_tool(schema)["function"]["name"]
        llm = model.bind_tools(
            [_as_tool(schema)], tool_choice=name, strict=strict, **traced, **bound
        )
        parser = _tool_parser(schema, name)
    elif schema is not None and method == "json_schema":
        form = convert_to_json_schema(_as_tool(schema), strict=strict)
        llm = model.bind(response_format=_format_of(form), **traced, **bound)
        parser = _text_parser(schema)
    else:
        traced = {} if schema is None else traced
        llm = model.bind(response_format={"type": "json_object"}, **traced, **bound)
        parser = _text_parser(schema)
    return _with_raw(llm, parser) if include_raw else llm | parser


def _format_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the form as OpenAI's API words it, which is what traces show elsewhere."""
    name = str(schema.get("title", "output"))
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def _as_tool(schema: Schema) -> Any:
    return dict(schema) if isinstance(schema, Mapping) else schema


def _is_pydantic(schema: object) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _tool_parser(schema: Schema, name: str) -> _Parser:
    if _is_pydantic(schema):
        tools: list[Any] = [schema]
        return PydanticToolsParser(tools=tools, first_tool_only=True)
    return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _text_parser(schema: Schema | None) -> _Parser:
    if _is_pydantic(schema):
        kind: Any = schema
        return PydanticOutputParser(pydantic_object=kind)
    return JsonOutputParser()


def _with_raw(
    llm: Runnable[LanguageModelInput, Any], parser: _Parser
) -> Runnable[LanguageModelInput, Any]:
    """Return a runnable that tells the message, the parsed output, and why there is none."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")
