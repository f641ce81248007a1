"""Parameters of LangChain models as options of calls."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from parrot_backend.protocol import (
    ChoiceFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    Sampling,
    Tool,
)
from parrot_integrations.langchain.options import (
    read_call,
    to_openai_tools,
    to_tools,
)
from parrot_integrations.planning.options import to_response_format, to_tool_choice

ADD = Tool(name="add"), Tool(name="mul")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def read(defaults: dict[str, Any] | None = None, stop: Any = None, **kwargs: Any) -> Any:
    return read_call(defaults or {}, stop, kwargs)


def test_nothing_given_is_the_server_s_default() -> None:
    spec = read()
    assert spec.options.sampling == Sampling()
    assert (spec.options.model, spec.n, spec.timeout_s) == (None, 1, None)


def test_a_call_wins_over_the_model() -> None:
    spec = read({"temperature": 0.5, "top_k": 3, "timeout": 9}, temperature=0.0, timeout=1)
    assert (spec.options.sampling.temperature, spec.options.sampling.top_k) == (0.0, 3)
    assert spec.timeout_s == 1


@pytest.mark.parametrize(
    ("default", "given", "stop"),
    [(["a"], None, ("a",)), (["a"], ["b"], ("b",)), (["a"], [], ()), (None, "ab", ("ab",))],
)
def test_stop(default: Any, given: Any, stop: tuple[str, ...]) -> None:
    assert read({"stop": default}, given).options.sampling.stop == stop


@pytest.mark.parametrize(
    ("logprobs", "top", "told"),
    [
        (None, None, None),
        (False, 3, None),
        (True, None, 0),
        (True, 3, 3),
        (None, 2, 2),
        (2, None, 2),
    ],
)
def test_logprobs_are_switched_on_and_counted(logprobs: Any, top: Any, told: Any) -> None:
    assert read(logprobs=logprobs, top_logprobs=top).options.sampling.logprobs == told


def test_an_unknown_parameter_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown parameters best_of, tempature; known are app"):
        read(tempature=0, best_of=2)


@pytest.mark.parametrize("bad", [{"temperature": 3}, {"n": 0}, {"n": "two"}, {"max_tokens": 0}])
def test_a_wrong_value_is_an_error(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        read(**bad)


def test_each_of_several_outputs_has_its_own_seed() -> None:
    seeds = [options.sampling.seed for options in read(n=3, seed=7).variants()]
    assert seeds == [7, 8, 9]
    assert [options.sampling.seed for options in read(n=2).variants()] == [None, None]


def test_arguments_of_the_chat_template_are_merged() -> None:
    defaults = {"chat_template_kwargs": {"enable_thinking": True, "level": 1}}
    spec = read(defaults, chat_template_kwargs={"level": 2})
    assert spec.options.chat_template_kwargs == {"enable_thinking": True, "level": 2}


def test_a_tool_keeps_name_description_and_schema() -> None:
    (converted,) = to_tools([add])
    assert (converted.name, converted.description) == ("add", "Add two numbers.")
    assert set(converted.parameters["properties"]) == {"a", "b"}


def test_tools_are_classes_functions_and_dictionaries() -> None:
    class Find(BaseModel):
        """Find it."""

        name: str

    def look(name: str) -> str:
        """Look."""
        return name

    bound = to_openai_tools([Find, look], strict=True)
    assert [tool["function"]["name"] for tool in bound] == ["Find", "look"]
    assert [tool.name for tool in to_tools(bound)] == ["Find", "look"]


@pytest.mark.parametrize(
    ("choice", "converted"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("none", "none"),
        (False, "none"),
        ("mul", NamedTool(name="mul")),
        ({"type": "function", "function": {"name": "add"}}, NamedTool(name="add")),
        ({"type": "tool", "name": "add"}, NamedTool(name="add")),
    ],
)
def test_tool_choice(choice: object, converted: object) -> None:
    assert to_tool_choice(choice, ADD) == converted


def test_a_choice_of_a_tool_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"tool_choice 'div' is not one of the tools \(add, mul\)"):
        to_tool_choice("div", ADD)


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("given", "converted"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonObjectFormat()),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
            JsonSchemaFormat(json_schema=SCHEMA),
        ),
        ({"type": "json_schema", "json_schema": SCHEMA}, JsonSchemaFormat(json_schema=SCHEMA)),
        ({"type": "choice", "choices": ["a", "b"]}, ChoiceFormat(choices=("a", "b"))),
        (JsonObjectFormat(), JsonObjectFormat()),
    ],
)
def test_response_format(given: object, converted: object) -> None:
    assert to_response_format(given) == converted


def test_a_form_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="xml"):
        to_response_format({"type": "xml"})
