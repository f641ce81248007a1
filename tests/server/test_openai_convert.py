"""Requests of OpenAI's API as calls: tables, no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend import protocol as wire
from parrot_backend.core.events import CallSpec
from parrot_backend.core.ids import SessionId
from parrot_backend.core.prompt import Input
from parrot_backend.errors import RequestError
from parrot_backend.server.convert import SubmitContext, submit_to_event
from parrot_backend.server.openai.base import NEUTRAL_ONLY, NO_EFFECT, parse_request
from parrot_backend.server.openai.chat import ChatRequest, chat_to_calls
from parrot_backend.server.openai.completions import (
    CompletionRequest,
    completions_to_calls,
    prompts_of,
)
from parrot_backend.server.openai.hints import Hints, hints_of
from parrot_backend.server.openai.placing import submit_of
from parrot_backend.server.openai.responses import ResponseRequest, response_to_call

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def chat(**fields: Any) -> tuple[wire.CallNode, ...]:
    body = {"messages": [USER], **fields}
    return chat_to_calls(parse_request(ChatRequest, json.dumps(body).encode()))


def completion(**fields: Any) -> tuple[wire.CallNode, ...]:
    request = parse_request(CompletionRequest, json.dumps(fields).encode())
    return completions_to_calls(request, prompts_of(request))


def response(**fields: Any) -> wire.CallNode:
    return response_to_call(parse_request(ResponseRequest, json.dumps(fields).encode()))


def texts(call: wire.CallNode) -> list[tuple[str, str]]:
    """Return role and constant text of each message."""
    assert call.messages is not None
    return [
        (
            message.role,
            "".join(s.text for s in message.content if isinstance(s, wire.TextSegment)),
        )
        for message in call.messages
    ]


SAMPLING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {"max_tokens": None, "temperature": 1.0, "top_p": 1.0, "logprobs": None}),
    "null is absent": (
        {"temperature": None, "stop": None, "n": None, "tools": None, "logit_bias": None},
        {"temperature": 1.0, "stop": ()},
    ),
    "max_tokens": ({"max_tokens": 7}, {"max_tokens": 7}),
    "the newer limit wins": ({"max_tokens": 7, "max_completion_tokens": 8}, {"max_tokens": 8}),
    "one stop string": ({"stop": "x"}, {"stop": ("x",)}),
    "stop strings": ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
    "seed": ({"seed": 5}, {"seed": 5}),
    "negative seed": ({"seed": -1}, {"seed": 2**63 - 1}),
    "penalties": (
        {"presence_penalty": 1, "frequency_penalty": -1.5, "repetition_penalty": 1.1},
        {"presence_penalty": 1.0, "frequency_penalty": -1.5, "repetition_penalty": 1.1},
    ),
    "vLLM's": (
        {"top_k": -1, "min_p": 0.1, "min_tokens": 3, "ignore_eos": True},
        {"top_k": 0, "min_p": 0.1, "min_tokens": 3, "ignore_eos": True},
    ),
    "logprobs": ({"logprobs": True}, {"logprobs": 0}),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
    "any text": ({"response_format": {"type": "text"}}, {"response_format": None}),
    "any object": (
        {"response_format": {"type": "json_object"}},
        {"response_format": wire.JsonObjectFormat()},
    ),
    "schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
            }
        },
        {"response_format": wire.JsonSchemaFormat(json_schema=SCHEMA)},
    ),
    "schema for vLLM": (
        {"structured_outputs": {"json": json.dumps(SCHEMA)}},
        {"response_format": wire.JsonSchemaFormat(json_schema=SCHEMA)},
    ),
    "pattern": (
        {"structured_outputs": {"regex": "[ab]+"}},
        {"response_format": wire.RegexFormat(pattern="[ab]+")},
    ),
    "choice": (
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"response_format": wire.ChoiceFormat(choices=("a", "b"))},
    ),
    "grammar": (
        {"structured_outputs": {"grammar": 'root ::= "x"'}},
        {"response_format": wire.GrammarFormat(grammar='root ::= "x"')},
    ),
    "object for vLLM": (
        {"structured_outputs": {"json_object": True}},
        {"response_format": wire.JsonObjectFormat()},
    ),
}


@pytest.mark.parametrize("case", SAMPLING)
def test_how_a_chat_is_sampled(case: str):
    fields, expected = SAMPLING[case]

    sampling = chat(**fields)[0].sampling

    assert {name: getattr(sampling, name) for name in expected} == expected


MESSAGES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str]]]] = {
    "roles": (
        [{"role": "developer", "content": "D"}, {"role": "system", "content": "S"}, USER],
        [("system", "D"), ("system", "S"), ("user", "Hello"), ("assistant", "")],
    ),
    "parts are lines": (
        [{"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]}],
        [("user", "a\nb"), ("assistant", "")],
    ),
    "a call and its answer": (
        [
            USER,
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "4"},
        ],
        [("user", "Hello"), ("assistant", ""), ("tool", "4"), ("assistant", "")],
    ),
    "an assistant's message at the end is not gone on with": (
        [USER, {"role": "assistant", "content": "Yes"}],
        [("user", "Hello"), ("assistant", "Yes"), ("assistant", "")],
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_of_a_chat(case: str):
    messages, expected = MESSAGES[case]

    assert texts(chat(messages=messages)[0]) == expected


def test_a_last_message_is_gone_on_with_on_request():
    messages = [USER, {"role": "assistant", "content": "Yes, "}]

    call = chat(messages=messages, continue_final_message=True, add_generation_prompt=False)[0]

    assert call.messages is not None
    assert texts(call) == [("user", "Hello"), ("assistant", "Yes, ")]
    assert isinstance(call.messages[-1].content[-1], wire.OutputSegment)


def test_choices_are_calls_with_seeds_of_their_own():
    calls = chat(n=3, seed=5)

    assert [call.name for call in calls] == ["choice0", "choice1", "choice2"]
    assert [call.sampling.seed for call in calls] == [5, 6, 7]
    assert [texts(call) for call in calls] == [texts(calls[0])] * 3


def test_tools_and_reasoning():
    chosen = {"type": "function", "function": {"name": "weather"}}

    call = chat(
        tools=[TOOL],
        tool_choice=chosen,
        parallel_tool_calls=False,
        reasoning_effort="none",
        chat_template_kwargs={"x": 1},
    )[0]

    assert call.tools[0].name == "weather"
    assert call.tool_choice == wire.NamedTool(name="weather")
    assert not call.parallel_tool_calls
    assert call.chat_template_kwargs == {
        "reasoning_effort": "none",
        "enable_thinking": False,
        "x": 1,
    }


def test_completions_of_several_prompts():
    calls = completion(prompt=["a", "b"], n=2, seed=1)

    assert [call.prompt[0].text for call in calls if call.prompt] == ["a", "a", "b", "b"]  # type: ignore[union-attr]
    assert [call.sampling.seed for call in calls] == [1, 2, 1, 2]
    assert calls[0].sampling.max_tokens == 16


def test_items_of_a_response_become_a_chat():
    call = response(
        instructions="Be brief.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
            },
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "4"},
        ],
        text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        max_output_tokens=9,
    )

    assert texts(call) == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Let me see."),
        ("tool", "4"),
        ("assistant", ""),
    ]
    assert call.messages is not None
    assert [made.id for made in call.messages[2].tool_calls] == ["1", "2"]
    assert call.sampling.max_tokens == 9
    assert call.sampling.response_format == wire.JsonSchemaFormat(json_schema=SCHEMA)


@given(st.text(alphabet=st.sampled_from("{}inputo:x ") | st.characters(codec="utf-8")))
def test_no_text_is_ever_taken_for_a_template(text: str):
    messages = [{"role": "system", "content": text}, {"role": "user", "content": text}]
    placed = submit_of(chat(messages=messages), Hints(), stream=False)

    event = submit_to_event(placed, SubmitContext(SessionId("s"), True, "t", 0.0, {}))

    assert isinstance(event.nodes[0], CallSpec)
    segments = event.nodes[0].segments
    assert not any(isinstance(segment, Input) for segment in segments)
    assert texts(chat(messages=messages)[0])[:2] == [("system", text), ("user", text)]


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
def test_harmless_parameters_are_taken(name: str):
    assert chat(**{name: "anything"}) == chat()


@pytest.mark.parametrize("name", sorted(NEUTRAL_ONLY))
def test_what_is_not_here_may_only_be_absent(name: str):
    for value in (None, *NEUTRAL_ONLY[name]):
        assert chat(**{name: value}) == chat()

    with pytest.raises(RequestError) as caught:
        chat(**{name: ["something"]})
    assert (caught.value.code, caught.value.context) == ("unsupported", {"field": name})


HINTS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = {
    "none": ({}, {}, {"app": "", "labels": {}, "kind": "unstated"}),
    "body": (
        {"parrot": {"app": "a", "session": "s", "stage": "g", "perf": "throughput"}},
        {},
        {"app": "a", "labels": {"session": "s", "stage": "g"}, "kind": "throughput"},
    ),
    "headers": (
        {},
        {"x-parrot-app": "a", "x-parrot-session": "s", "x-parrot-perf": "throughput"},
        {"app": "a", "labels": {"session": "s"}, "kind": "throughput"},
    ),
    "the body wins": (
        {"parrot": {"app": "b", "perf": "latency"}},
        {"x-parrot-app": "a", "x-parrot-stage": "g", "x-parrot-perf": "throughput"},
        {"app": "b", "labels": {"stage": "g"}, "kind": "latency"},
    ),
    "targets": (
        {"parrot": {"perf": {"ttft_s": 0.5}, "metadata": {"run": 3}}},
        {},
        {"app": "", "labels": {"run": 3}, "kind": "unstated"},
    ),
    "OpenAI's user and vLLM's session": (
        {"user": "u", "session_id": "s"},
        {},
        {"app": "", "labels": {"user": "u", "session": "s"}, "kind": "unstated"},
    ),
}


@pytest.mark.parametrize("case", HINTS)
def test_hints_of_a_request(case: str):
    fields, headers, expected = HINTS[case]
    body = parse_request(ChatRequest, json.dumps({"messages": [USER], **fields}).encode())

    hints = hints_of(body.parrot, headers, user=body.user, session_id=body.session_id)
    placed = submit_of(chat_to_calls(body), hints, stream=True)

    assert {
        "app": placed.app,
        "labels": placed.metadata,
        "kind": hints.criteria.kind,
    } == expected
    assert placed.close
    assert placed.on_disconnect == "cancel"


def test_the_page_names_every_parameter():
    page = (Path(__file__).parent.parent.parent / "docs" / "openai.md").read_text()
    models = (ChatRequest, CompletionRequest, ResponseRequest)
    declared = {name for model in models for name in model.model_fields}
    known = declared | NO_EFFECT | set(NEUTRAL_ONLY)

    assert [name for name in sorted(known) if f"`{name}`" not in page] == []
