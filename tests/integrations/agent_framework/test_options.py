"""Options: what they become, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import tool
from pydantic import BaseModel

import parrot_integrations as P
from parrot_backend.protocol import JsonObjectFormat, JsonSchemaFormat, NamedTool, RegexFormat
from parrot_integrations.agent_framework.options import read_options


class City(BaseModel):
    name: str


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


def test_every_sampling_option_is_read() -> None:
    given = {
        "model": "m", "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "seed": 3,
        "presence_penalty": 0.2, "frequency_penalty": 0.3, "repetition_penalty": 1.1,
        "max_tokens": 9, "min_tokens": 2, "ignore_eos": True, "stop": ".", "logprobs": True,
        "top_logprobs": 2, "chat_template_kwargs": {"enable_thinking": False},
        "allow_multiple_tool_calls": False, "timeout_s": 3.0,
    }  # fmt: skip
    spec = read_options(given, "own")
    assert spec.options.model == "m"
    assert spec.options.chat_template_kwargs == {"enable_thinking": False}
    assert not spec.options.parallel_tool_calls
    assert spec.timeout_s == 3.0
    assert spec.options.sampling == P.Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        min_p=0.1,
        seed=3,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        max_tokens=9,
        min_tokens=2,
        ignore_eos=True,
        stop=(".",),
        logprobs=2,
    )


def test_nothing_given_is_the_servers_default() -> None:
    spec = read_options({"temperature": None, "model": None}, "own")
    assert spec.options.sampling == P.Sampling()
    assert (spec.options.model, spec.timeout_s) == ("own", None)


SCHEMA = City.model_json_schema()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (City, JsonSchemaFormat(json_schema=SCHEMA)),
        (SCHEMA, JsonSchemaFormat(json_schema=SCHEMA)),
        (
            {"anyOf": [{"type": "null"}]},
            JsonSchemaFormat(json_schema={"anyOf": [{"type": "null"}]}),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}},
            JsonSchemaFormat(json_schema=SCHEMA),
        ),
        ({"type": "json_object"}, JsonObjectFormat()),
        ({"type": "text"}, None),
        ({"type": "regex", "pattern": "a+"}, RegexFormat(pattern="a+")),
        (None, None),
    ],
)
def test_forms_of_outputs(given: Any, expected: Any) -> None:
    assert read_options({"response_format": given}, None).options.sampling.response_format == (
        expected
    )


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        (None, "auto", ["add", "shout"]),
        ("auto", "auto", ["add", "shout"]),
        ("none", "none", ["add", "shout"]),
        ("required", "required", ["add", "shout"]),
        ({"mode": "required"}, "required", ["add", "shout"]),
        (
            {"mode": "required", "required_function_name": "add"},
            NamedTool(name="add"),
            ["add", "shout"],
        ),
        ({"mode": "auto", "allowed_tools": ["shout"]}, "auto", ["shout"]),
    ],
)
def test_choices_of_tools(choice: Any, expected: Any, names: list[str]) -> None:
    call = read_options({"tools": [add, shout], "tool_choice": choice}, None).options
    assert call.tool_choice == expected
    assert [offered.name for offered in call.tools] == names


def test_a_tool_in_openais_form() -> None:
    (found,) = read_options({"tools": [add.to_json_schema_spec()]}, None).options.tools
    assert (found.name, found.description) == ("add", "Add two numbers.")
    assert set(found.parameters["properties"]) == {"a", "b"}


def test_annotations() -> None:
    given = {"app": "a", "session": "s", "stage": "t", "perf": "throughput"}
    annotation = read_options({**given, "user": "u", "metadata": {"k": 1}}, None).annotation
    assert {name: getattr(annotation, name) for name in given} == given
    assert annotation.labels() == {"session": "s", "user": "u", "k": 1}
    assert annotation.call_stage == "t"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"logit_bias": {"1": 2.0}}, "unknown options logit_bias"),
        ({"conversation_id": "c"}, "unknown options conversation_id"),
        ({"temprature": 1}, "unknown options temprature"),
        ({"store": True}, "stores no conversations"),
        ({"metadata": {"k": [1]}}, "metadata"),
        ({"tools": [object()]}, "no use for a object"),
        ({"tools": [{"type": "web_search"}]}, "no function"),
        ({"tools": [add], "tool_choice": {"mode": "auto", "allowed_tools": ["x"]}}, "'x'"),
        (
            {"tools": [add], "tool_choice": {"mode": "required", "required_function_name": "x"}},
            "'x'",
        ),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, "no mapping"),
        ({"response_format": {"type": "yaml"}}, "yaml"),
        ({"min_p": 7}, "min_p"),
    ],
)
def test_what_is_not_known_is_an_error(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_options(given, None)


def test_what_parrot_does_anyway_is_accepted() -> None:
    assert read_options({"store": False, "instructions": "be brief"}, None)
