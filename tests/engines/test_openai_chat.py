"""Chats on the wire of OpenAI's API: bodies of requests, and replies from chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parrot_backend.core.chat import (
    ChatOptions,
    MessageHead,
    NamedTool,
    ResponseFormat,
    TokenLogprob,
    Tool,
    ToolCall,
    TopLogprob,
)
from parrot_backend.core.criteria import UNANNOTATED
from parrot_backend.core.events import RequestUsage, TokensGenerated
from parrot_backend.core.ids import AttemptId, SessionId
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.openai_reply import RemoteReply
from parrot_backend.engines.openai_wire import parse_chunk, path_and_body, refusal
from tests.contract.driver import constant, role

ATTEMPT = AttemptId("s.a#0~0")
USER = (role("user"), constant("hi"))
LOOK = Tool("look", "Look.", '{"type": "object"}')
LOOK_BODY = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}


def request(
    parts: tuple[PromptPart, ...] = USER, chat: ChatOptions | None = None, **sampling: Any
) -> EngineRequest:
    return EngineRequest(
        ATTEMPT,
        SessionId("s"),
        None,
        parts,
        Sampling(**sampling),
        UNANNOTATED,
        chat=chat or ChatOptions(),
    )


def body(asked: EngineRequest) -> dict[str, Any]:
    return path_and_body(asked, "m", 9, sends_cache_salt=True)[1]


def test_an_ordinary_chat_has_no_further_fields():
    assert set(body(request())) == {
        *("model", "stream", "stream_options", "max_tokens", "temperature", "messages"),
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        (NamedTool("look"), {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_tools(choice: Any, expected: Any):
    found = body(request(chat=ChatOptions((LOOK,), choice, parallel_tool_calls=False)))

    assert found["tools"] == [LOOK_BODY]
    assert found["tool_choice"] == expected
    assert found["parallel_tool_calls"] is False


def test_arguments_of_the_template():
    found = body(request(chat=ChatOptions(template_kwargs=(("deep", True),))))

    assert found["chat_template_kwargs"] == {"deep": True}


def test_a_history():
    calls = (ToolCall("c1", "look", '{"a": 1}'),)
    parts = (
        PromptPart(PartKind.ROLE, "user", head=MessageHead(name="Ada")),
        constant("hi"),
        PromptPart(PartKind.ROLE, "assistant", head=MessageHead(tool_calls=calls)),
        PromptPart(PartKind.ROLE, "tool", head=MessageHead(tool_call_id="c1")),
        constant("a ship"),
        role("assistant"),
    )

    assert body(request(parts))["messages"] == [
        {"role": "user", "content": "hi", "name": "Ada"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"a": 1}'},
                }
            ],
        },
        {"role": "tool", "content": "a ship", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            ResponseFormat("json_schema", '{"type": "object"}'),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "output",
                        "schema": {"type": "object"},
                        "strict": True,
                    },
                }
            },
        ),
        (ResponseFormat("json_object"), {"response_format": {"type": "json_object"}}),
        (ResponseFormat("regex", "a+"), {"structured_outputs": {"regex": "a+"}}),
        (ResponseFormat("grammar", "g"), {"structured_outputs": {"grammar": "g"}}),
        (ResponseFormat("choice", '["a"]'), {"structured_outputs": {"choice": ["a"]}}),
    ],
)
def test_forms(wanted: ResponseFormat, expected: dict[str, Any]):
    found = body(request(response_format=wanted))

    assert {key: found[key] for key in expected} == expected


def test_log_probabilities_are_asked_for_in_two_ways():
    assert body(request(logprobs=2))["top_logprobs"] == 2
    assert body(request(logprobs=2))["logprobs"] is True
    assert body(request((constant("raw"),), logprobs=2))["logprobs"] == 2


def reply_of(*deltas: dict[str, Any], reason: str = "stop", **sampling: Any) -> Any:
    reply = RemoteReply(request(**sampling))
    said = [out for delta in deltas for out in reply.add(chunk(delta))]
    reply.add(chunk({}, finish_reason=reason))
    reply.add(parse_chunk('{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}'))
    assert reply.is_complete
    return said, reply.finished()


def chunk(delta: dict[str, Any], **fields: Any) -> Any:
    return parse_chunk(json.dumps({"choices": [{"delta": delta, **fields}]}))


def call_delta(index: int, **function: str) -> dict[str, Any]:
    identity = {"id": f"c{index}"} if "name" in function else {}
    return {"index": index, **identity, "function": function}


def test_calls_are_put_together():
    said, finished = reply_of(
        {"content": "Well. "},
        {"tool_calls": [call_delta(0, name="look", arguments="")]},
        {"tool_calls": [call_delta(0, arguments='{"a"')]},
        {
            "tool_calls": [
                call_delta(0, arguments=": 1}"),
                call_delta(1, name="wait", arguments="{}"),
            ]
        },
    )

    assert finished.details.tool_calls == (
        ToolCall("c0", "look", '{"a": 1}'),
        ToolCall("c1", "wait", "{}"),
    )
    assert (finished.text, finished.finish_reason) == ("Well. ", "tool_calls")
    assert "".join(out.text for out in said) == "Well. "
    assert finished.usage == RequestUsage(1, 2)


def test_a_cut_call_is_told_as_cut():
    deltas = {"tool_calls": [call_delta(0, name="look", arguments='{"a')]}
    _, finished = reply_of(deltas, reason="length")

    assert finished.finish_reason == "length"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning(name: str):
    said, finished = reply_of({name: "Hm"}, {name: "m"}, {"content": "Yes"})

    assert said == [
        TokensGenerated(ATTEMPT, "Hm", 1, is_reasoning=True),
        TokensGenerated(ATTEMPT, "m", 1, is_reasoning=True),
        TokensGenerated(ATTEMPT, "Yes", 1),
    ]
    assert (finished.text, finished.details.reasoning) == ("Yes", "Hmm")


def test_log_probabilities_without_the_end():
    def told(token: str) -> dict[str, Any]:
        tops = [{"token": token, "logprob": -0.5}, {"token": "x", "logprob": -1.0}]
        return {"content": [{"token": token, "logprob": -0.5, "top_logprobs": tops}]}

    reply = RemoteReply(request(logprobs=1))
    reply.add(chunk({"content": "Yes"}, logprobs=told("Yes")))
    reply.add(chunk({"content": ""}, logprobs=told("<end>"), finish_reason="stop"))
    reply.add(parse_chunk('{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}'))

    top = (TopLogprob("Yes", -0.5),)
    assert reply.finished().details.logprobs == (TokenLogprob("Yes", -0.5, top),)


def test_log_probabilities_of_a_completion():
    data = {
        "choices": [
            {
                "text": "ab",
                "logprobs": {
                    "tokens": ["a", "b"],
                    "token_logprobs": [-1.0, -2.0],
                    "top_logprobs": [{"x": -3.0, "a": -1.0}, None],
                },
            }
        ]
    }

    assert parse_chunk(json.dumps(data)).logprobs == (
        TokenLogprob("a", -1.0, (TopLogprob("a", -1.0), TopLogprob("x", -3.0))),
        TokenLogprob("b", -2.0),
    )


def test_a_refused_form_has_its_code():
    message = '{"error": {"message": "Invalid schema for response_format \'output\'"}}'

    assert refusal(400, message).code == "invalid_format"
