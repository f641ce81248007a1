"""Messages, arguments, results and token estimates: pure, by tables."""

from __future__ import annotations

from typing import Any

import pytest
from autogen_core import FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from PIL import Image as Pictures
from pydantic import BaseModel

from parrot_backend.protocol import (
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    TokenLogprob,
    ToolCall,
    TopLogprob,
    Usage,
    VariableView,
)
from parrot_integrations.autogen.messages import to_messages
from parrot_integrations.autogen.options import Choice, read_arguments
from parrot_integrations.autogen.results import to_result
from parrot_integrations.autogen.tokens import TokenEstimate
from parrot_integrations.planning.calls import CallOptions, ChatMessage, ModelCall

CALL = FunctionCall(id="c1", arguments='{"a": 1}', name="add")
PICTURE = Image(Pictures.new("RGB", (1, 1)))


class Sum(BaseModel):
    total: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool(add, description="Add two numbers.")


@pytest.mark.parametrize(
    ("message", "made"),
    [
        (SystemMessage(content="Be brief."), [ChatMessage("system", "Be brief.")]),
        (UserMessage(content="hi", source="ann"), [ChatMessage("user", "hi", name="ann")]),
        (UserMessage(content=["a", "b"], source=""), [ChatMessage("user", "a\nb")]),
        (
            AssistantMessage(content="yes", thought="hm", source="bob"),
            [ChatMessage("assistant", "yes", name="bob")],
        ),
        (
            AssistantMessage(content=[CALL], thought="I add", source="bob"),
            [
                ChatMessage(
                    "assistant",
                    "I add",
                    name="bob",
                    tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),),
                )
            ],
        ),
        (
            FunctionExecutionResultMessage(
                content=[
                    FunctionExecutionResult(content="3", name="add", call_id="c1"),
                    FunctionExecutionResult(content="no", name="f", call_id="c2", is_error=True),
                ]
            ),
            [
                ChatMessage("tool", "3", tool_call_id="c1"),
                ChatMessage("tool", "no", tool_call_id="c2"),
            ],
        ),
    ],
)
def test_messages(message: LLMMessage, made: list[ChatMessage]) -> None:
    assert list(to_messages([message])) == made


def test_a_chat_that_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="at least one"):
        to_messages([])
    with pytest.raises(ValueError, match="image"):
        to_messages([UserMessage(content=["see", PICTURE], source="ann")])


@pytest.mark.parametrize(
    ("given", "sampling"),
    [
        ({"temperature": 0, "max_tokens": 5}, {"temperature": 0.0, "max_tokens": 5}),
        ({"stop": "x", "seed": None}, {"stop": ("x",), "seed": None}),
        ({"top_logprobs": 2}, {"logprobs": 2}),
        ({"response_format": {"type": "json_object"}}, {"response_format": JsonObjectFormat()}),
    ],
)
def test_sampling(given: dict[str, Any], sampling: dict[str, Any]) -> None:
    found = read_arguments(given).options.sampling
    assert {name: getattr(found, name) for name in sampling} == sampling


@pytest.mark.parametrize(
    ("json_output", "form"),
    [
        (None, None),
        (False, None),
        (True, JsonObjectFormat()),
        (Sum, JsonSchemaFormat(json_schema=Sum.model_json_schema())),
    ],
)
def test_json_output(json_output: Any, form: object) -> None:
    assert read_arguments({}, json_output=json_output).options.sampling.response_format == form


def test_tools_and_how_they_are_chosen() -> None:
    cases: list[tuple[Choice, object]] = [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (ADD, NamedTool(name="add")),
    ]
    for choice, chosen in cases:
        options = read_arguments({}, tools=[ADD], tool_choice=choice).options
        assert [tool.name for tool in options.tools] == ["add"]
        assert options.tools[0].parameters["required"] == ["a", "b"]
        assert options.tool_choice == chosen
    # Without tools there is nothing to choose: agents say "auto" then, too.
    assert read_arguments({}, tool_choice="required").options.tool_choice == "auto"
    assert read_arguments({}, tools=[{"name": "f"}]).options.tools[0].name == "f"


@pytest.mark.parametrize(
    ("given", "others", "says"),
    [
        ({"n": 2}, {}, "unknown arguments n"),
        ({"temperature": 9}, {}, "temperature"),
        ({"response_format": {"type": "json_object"}}, {"json_output": True}, "not both"),
        ({}, {"json_output": 3}, "truth value"),
        ({}, {"tools": [{"name": "not a name"}]}, "name"),
        ({}, {"tools": [{"name": "f"}], "tool_choice": ADD}, "not one of the tools"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], others: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_arguments(given, **others)


def view(**fields: Any) -> VariableView:
    return VariableView(id="s.v", name="v", state="ready", **fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"value": "a", "finish_reason": "stop"}, "stop"),
        ({"value": "a", "finish_reason": "length"}, "length"),
        ({"value": "a", "finish_reason": "repetition"}, "unknown"),
        ({"value": "a"}, "unknown"),
    ],
)
def test_finish_reasons(fields: dict[str, Any], reason: str) -> None:
    assert to_result(view(**fields)).finish_reason == reason


def test_a_whole_result() -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=4)
    token = TokenLogprob(token="a", logprob=-0.5, top=(TopLogprob(token="b", logprob=-1.0),))
    result = to_result(view(value="a", reasoning="hm", usage=usage, logprobs=(token,)))
    assert (result.content, result.thought) == ("a", "hm")
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (7, 2)
    assert result.logprobs is not None
    assert result.logprobs[0].top_logprobs is not None
    assert (result.logprobs[0].logprob, result.logprobs[0].top_logprobs[0].bytes) == (-0.5, [98])


def test_calls_of_tools_come_with_what_is_said_beside_them() -> None:
    call = ToolCall(id="c1", name="add", arguments='{"a": 1}')
    result = to_result(view(value="I add", tool_calls=(call,), finish_reason="stop"))
    assert result.content == [CALL]
    assert (result.thought, result.finish_reason) == ("I add", "function_calls")


def test_estimates_learn_the_rate() -> None:
    def prompt(text: str) -> ModelCall:
        return ModelCall(CallOptions(), messages=(ChatMessage("user", text),))

    estimate = TokenEstimate()
    assert estimate.of(prompt("a" * 40)) == 10
    estimate.learn(prompt("a" * 40), 0)
    assert estimate.of(prompt("a" * 40)) == 10
    estimate.learn(prompt("a" * 60), 30)
    assert estimate.of(prompt("a" * 40)) == 20
    with_tool = ModelCall(read_arguments({}, tools=[ADD]).options, messages=prompt("a").messages)
    assert estimate.of(with_tool) > estimate.of(prompt("a" * 40))
