"""Execution settings: their conversion, their checks, their way through prompt configurations."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from semantic_kernel.connectors.ai.function_choice_behavior import (
    FunctionChoiceBehavior,
)
from semantic_kernel.connectors.ai.function_choice_type import FunctionChoiceType
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelFunctionFromPrompt
from semantic_kernel.prompt_template import PromptTemplateConfig

from parrot_integrations import Criteria
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel import services as services_module
from parrot_integrations.semantic_kernel.errors import InvalidSettings

KINDS: list[Any] = [ParrotChatPromptExecutionSettings, ParrotTextPromptExecutionSettings]

VALUES: dict[str, Any] = {
    "ai_model_id": "m",
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 4,
    "stop": ["."],
    "min_tokens": 2,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "repetition_penalty": 1.1,
    "ignore_eos": True,
    "number_of_responses": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "response_format": {"type": "json_object"},
    "perf": "throughput",
    "app": "a",
    "session": "s",
    "stage": "t",
    "timeout_s": 7.0,
}


def values_of(settings: PromptExecutionSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in VALUES}


def test_every_field_is_in_the_table() -> None:
    own = ParrotPromptExecutionSettings.model_fields.keys()
    assert own - PromptExecutionSettings.model_fields.keys() == VALUES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_settings_by_name_and_from_general_ones(kind: Any) -> None:
    direct = kind(service_id="x", **VALUES)
    general = PromptExecutionSettings(service_id="x", **VALUES)
    assert values_of(direct) == values_of(kind.from_prompt_execution_settings(general)) == VALUES
    assert direct.service_id == "x"


@pytest.mark.parametrize("kind", KINDS)
def test_settings_survive_packing_and_copying(kind: Any) -> None:
    settings = kind(**VALUES)
    settings.pack_extension_data()
    again = kind.from_prompt_execution_settings(copy.deepcopy(settings))
    assert values_of(again) == VALUES
    other = kind()
    other.update_from_prompt_execution_settings(settings)
    assert values_of(other) == VALUES
    assert kind().prepare_settings_dict() == {}
    assert kind(**VALUES).prepare_settings_dict()["n"] == 2


def test_settings_come_from_prompt_configurations() -> None:
    config = {
        "template": "{{$input}}",
        "execution_settings": {"parrot": {**VALUES, "perf": {"ttft_s": 0.5}}},
    }
    loaded = PromptTemplateConfig.from_json(json.dumps(config)).execution_settings["parrot"]
    own = ParrotChatPromptExecutionSettings.from_prompt_execution_settings(loaded)
    assert values_of(own) == {**VALUES, "perf": Criteria(ttft_s=0.5)}
    text = """
template: "{{$input}}"
template_format: semantic-kernel
name: f
execution_settings:
  default:
    temperature: 0.25
    stop: ["a"]
    function_choice_behavior:
      type: auto
"""
    function = KernelFunctionFromPrompt.from_yaml(text)
    loaded = function.prompt_execution_settings["default"]
    own = ParrotChatPromptExecutionSettings.from_prompt_execution_settings(loaded)
    assert (own.temperature, own.stop) == (0.25, ["a"])
    assert own.function_choice_behavior is not None
    assert own.function_choice_behavior.type_ is FunctionChoiceType.AUTO


WRONG: list[dict[str, Any]] = [
    {"temperature": 3},
    {"temperature": "warm"},
    {"top_p": 0},
    {"max_tokens": 0},
    {"number_of_responses": 0},
    {"seed": -1},
    {"logprobs": 21},
    {"perf": "fast"},
    {"timeout_s": 0},
    {"ai_model_id": ""},
    {"stop": 3},
    {"response_format": {"type": "xml"}},
    {"response_format": "json"},
    {"response_format": {"type": "choice", "choices": []}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_value_is_an_error_at_once_or_at_the_call(
    wrong: dict[str, Any], chat: ParrotChatCompletion, chat_history: Any
) -> None:
    with pytest.raises(ValidationError):
        ParrotChatPromptExecutionSettings(**wrong)
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        chat.foresee(chat_history, PromptExecutionSettings(**wrong), None)


@pytest.mark.parametrize(
    "wrong",
    [{"min_tokens": 9, "max_tokens": 3}, {"stop": [""]}, {"stop": ["a"] * 17}, {"tools": [{}]}],
    ids=str,
)
def test_what_only_the_whole_shows_is_an_error_at_the_call(
    wrong: dict[str, Any], chat: ParrotChatCompletion, chat_history: Any
) -> None:
    settings = ParrotChatPromptExecutionSettings(**wrong)
    with pytest.raises(InvalidSettings):
        chat.foresee(chat_history, settings, None)


def test_settings_of_another_service_are_taken_over_and_the_rest_is_told_once(
    chat: ParrotChatCompletion, chat_history: Any, caplog: pytest.LogCaptureFixture
) -> None:
    services_module._warn_of.cache_clear()
    with warnings.catch_warnings():
        # Its import is full of what pydantic has deprecated.
        warnings.simplefilter("ignore")
        from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings
    foreign = OpenAIChatPromptExecutionSettings(
        temperature=0.5, max_completion_tokens=7, user="secret", logit_bias={"1": 2.0}, stream=True
    )
    with caplog.at_level(logging.WARNING, services_module.__name__):
        for _ in range(3):
            (call,), _terms = chat.foresee(chat_history, foreign, None)
    assert (call.options.sampling.temperature, call.options.sampling.max_tokens) == (0.5, 7)
    (record,) = caplog.records
    assert "logit_bias, user" in record.message
    assert "secret" not in record.message


def test_settings_for_function_calls_cause_no_warning(
    chat: ParrotChatCompletion, chat_history: Any, caplog: pytest.LogCaptureFixture
) -> None:
    behavior = FunctionChoiceBehavior.Auto()
    own = ParrotChatPromptExecutionSettings(function_choice_behavior=behavior, temperature=0)
    own.pack_extension_data()
    chat.get_prompt_execution_settings_from_settings(own)
    general = PromptExecutionSettings(function_choice_behavior=behavior, temperature=0)
    chat.get_prompt_execution_settings_from_settings(general)
    assert not caplog.records


class City(BaseModel):
    name: str
    people: int


def test_a_class_as_form_survives_copies() -> None:
    settings = ParrotChatPromptExecutionSettings(response_format=City)
    general = PromptExecutionSettings(response_format=City)
    again = ParrotChatPromptExecutionSettings.from_prompt_execution_settings(general)
    assert copy.deepcopy(settings).response_format is again.response_format is City
