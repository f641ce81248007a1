"""Execution settings as options of calls."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from semantic_kernel.kernel_pydantic import KernelBaseModel

from parrot_backend.protocol import (
    ChoiceFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    Sampling,
)
from parrot_integrations.planning.calls import CallOptions
from parrot_integrations.semantic_kernel import (
    ParrotChatPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel.options import to_options
from tests.integrations.semantic_kernel.test_execution_settings import VALUES

TOOLS = [
    {"type": "function", "function": {"name": "m-add", "description": "Adds", "parameters": {}}},
    {"type": "function", "function": {"name": "mul"}},
]


def options(model: str = "default", **given: Any) -> list[CallOptions]:
    return to_options(ParrotChatPromptExecutionSettings(**given), model)


def test_nothing_given_is_the_server_s_default() -> None:
    assert options() == [CallOptions()]


def test_all_settings_are_sent() -> None:
    first, second = options("m", **VALUES)
    sampling = Sampling(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        seed=4,
        stop=(".",),
        min_tokens=2,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        ignore_eos=True,
        logprobs=3,
        response_format=JsonObjectFormat(),
    )
    assert first == CallOptions(model="m", sampling=sampling)
    assert second.sampling == sampling.model_copy(update={"seed": 5})
    assert to_options(ParrotTextPromptExecutionSettings(**VALUES), "m") == [first, second]


def test_replies_without_a_seed_differ_by_themselves() -> None:
    assert options(number_of_responses=3) == [CallOptions()] * 3


@pytest.mark.parametrize(("name", "sent"), [("default", None), ("m", "m")])
def test_the_default_model_is_the_server_s(name: str, sent: str | None) -> None:
    assert options(name)[0].model == sent


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 3, "max_completion_tokens": 5}, 3),
        ({"max_completion_tokens": 5}, 5),
        ({}, 256),
    ],
)
def test_both_words_for_the_longest_reply(given: dict[str, Any], sent: int) -> None:
    assert options(**given)[0].sampling.max_tokens == sent


@pytest.mark.parametrize(
    ("logprobs", "top", "told"),
    [(None, None, None), (False, 3, None), (True, None, 0), (True, 3, 3), (2, None, 2)],
)
def test_logprobs(logprobs: Any, top: Any, told: Any) -> None:
    assert options(logprobs=logprobs, top_logprobs=top)[0].sampling.logprobs == told


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        ("m-add", NamedTool(name="m-add")),
        ({"type": "function", "function": {"name": "mul"}}, NamedTool(name="mul")),
    ],
)
def test_tools(choice: Any, sent: Any) -> None:
    (found,) = options(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert [(tool.name, tool.description) for tool in found.tools] == [
        ("m-add", "Adds"),
        ("mul", ""),
    ]
    assert (found.tool_choice, found.parallel_tool_calls) == (sent, False)


def test_a_choice_of_a_tool_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'div' is not one of the tools \(m-add, mul\)"):
        options(tools=TOOLS, tool_choice="div")


def test_arguments_of_the_chat_template() -> None:
    given = {"enable_thinking": False, "level": 2}
    assert options(chat_template_kwargs=given)[0].chat_template_kwargs == given


class City(BaseModel):
    name: str


class KernelCity(KernelBaseModel):
    name: str


class PlainCity:
    name: str


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonObjectFormat()),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
            JsonSchemaFormat(json_schema=SCHEMA),
        ),
        ({"type": "choice", "choices": ["a", "b"]}, ChoiceFormat(choices=("a", "b"))),
        (JsonObjectFormat(), JsonObjectFormat()),
        (City, JsonSchemaFormat(json_schema=City.model_json_schema())),
        (KernelCity, JsonSchemaFormat(json_schema=KernelCity.model_json_schema())),
    ],
    ids=repr,
)
def test_forms(given: Any, sent: Any) -> None:
    assert options(response_format=given)[0].sampling.response_format == sent


def test_a_plain_class_as_form() -> None:
    form = options(response_format=PlainCity)[0].sampling.response_format
    assert isinstance(form, JsonSchemaFormat)
    assert form.json_schema["properties"] == {"name": {"type": "string"}}
    assert form.json_schema["required"] == ["name"]
