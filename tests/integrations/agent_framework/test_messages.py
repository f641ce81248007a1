"""Messages and replies in both directions, as pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Content, Message
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.protocol import TokenLogprob, ToolCall, Usage, VariableView
from parrot_integrations.agent_framework.messages import to_messages
from parrot_integrations.agent_framework.results import to_response, to_update
from parrot_integrations.planning.calls import ChatMessage
from parrot_integrations.planning.reply import ReplyText


def asked(arguments: Any) -> Message:
    thought = Content.from_text_reasoning(text="hm")
    call = Content.from_function_call("c1", "add", arguments=arguments)
    return Message("assistant", [thought, "well", call])


def answered(arguments: str) -> ChatMessage:
    call = ToolCall(id="c1", name="add", arguments=arguments)
    return ChatMessage("assistant", "well", tool_calls=(call,))


RESULTS = [
    Content.from_function_result("c1", result="3"),
    Content.from_function_result("c2", result={"b": 4}),
    Content.from_function_result("c3", result=None),
]
CASES: dict[str, tuple[Message, list[ChatMessage]]] = {
    "system": (Message("system", ["s"]), [ChatMessage("system", "s")]),
    "developer": (Message("developer", ["s"]), [ChatMessage("system", "s")]),
    "user": (
        Message("user", ["a", "b"], author_name="ann"),
        [ChatMessage("user", "a b", name="ann")],
    ),
    "nothing said": (Message("user", []), [ChatMessage("user", "")]),
    "call": (asked('{"a": 1}'), [answered('{"a": 1}')]),
    "call with a mapping": (asked({"a": "ü"}), [answered('{"a": "ü"}')]),
    "call without arguments": (asked(None), [answered("{}")]),
    "results": (
        Message("tool", RESULTS),
        [
            ChatMessage("tool", "3", tool_call_id="c1"),
            ChatMessage("tool", '{"b": 4}', tool_call_id="c2"),
            ChatMessage("tool", "", tool_call_id="c3"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_message_is_converted(name: str) -> None:
    message, expected = CASES[name]
    assert to_messages([message]) == tuple(expected)


PICTURE = Content.from_uri("http://x/y.png", media_type="image/png")


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "at least one"),
        ([Message("user", ["see", PICTURE])], "'uri'"),
        ([Message("user", [Content.from_function_call("c", "f")])], "'function_call'"),
        ([Message("tool", ["3"])], "'text'"),
        ([Message("tool", [Content.from_function_result("c", result=[PICTURE])])], "'uri'"),
        ([Message("critic", ["no"])], "'critic'"),
    ],
)
def test_what_cannot_be_sent_is_an_error(messages: list[Message], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        to_messages(messages)


@given(st.text(), st.sampled_from(["system", "user", "assistant"]))
def test_a_text_passes_through_unchanged(text: str, role: str) -> None:
    (message,) = to_messages([Message(role, [text])])
    assert (message.role, message.content) == (role, text)


VIEW = VariableView(
    id="s1.reply",
    name="reply",
    state="ready",
    value="hello",
    reasoning="hm",
    finish_reason="stop",
    tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),),
    usage=Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2),
    logprobs=(TokenLogprob(token="hello", logprob=-0.5),),
)
USAGE = {
    "input_token_count": 3,
    "output_token_count": 4,
    "total_token_count": 7,
    "cache_read_input_token_count": 2,
}


def test_a_reply_has_everything() -> None:
    response = to_response(VIEW, "m", None)
    (message,) = response.messages
    kinds = [content.type for content in message.contents]
    assert kinds == ["text_reasoning", "text", "function_call"]
    assert (response.text, response.model, response.response_id) == ("hello", "m", "s1.reply")
    assert response.finish_reason == "tool_calls"
    assert response.usage_details == USAGE
    assert response.additional_properties["logprobs"]["content"][0]["logprob"] == -0.5


@pytest.mark.parametrize("reason", ["stop", "length", None])
def test_why_a_reply_ended_is_told(reason: str | None) -> None:
    view = VIEW.model_copy(update={"tool_calls": (), "finish_reason": reason})
    assert to_response(view, None, None).finish_reason == reason
    assert to_update(view, None).finish_reason == reason


def test_the_pieces_of_a_reply_are_the_whole() -> None:
    pieces = [
        to_update(ReplyText("h", "reasoning"), "m"),
        to_update(ReplyText("m", "reasoning"), "m"),
    ]
    pieces += [to_update(ReplyText("hel"), "m"), to_update(ReplyText("lo"), "m")]
    last = to_update(VIEW, "m")
    whole = type(to_response(VIEW, "m", None)).from_updates([*pieces, last])
    expected = to_response(VIEW, "m", None)
    for name in ("text", "model", "response_id", "finish_reason", "usage_details"):
        assert getattr(whole, name) == getattr(expected, name), name
    assert whole.additional_properties == expected.additional_properties
    found, wanted = (
        [(c.type, c.text, c.name, c.arguments) for c in response.messages[0].contents]
        for response in (whole, expected)
    )
    assert found == wanted
