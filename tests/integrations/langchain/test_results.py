"""Replies as LangChain's messages."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from parrot_backend.protocol import TokenLogprob, ToolCall, TopLogprob, Usage, VariableView
from parrot_integrations.langchain.results import (
    to_ai_message,
    to_last_chunk,
    to_text_chunk,
)
from parrot_integrations.planning.reply import ReplyText


def view(**fields: Any) -> VariableView:
    return VariableView(
        **{"id": "s1.reply", "name": "reply", "state": "ready", "value": "hi"} | fields
    )


def streamed(*texts: ReplyText, last: VariableView) -> AIMessageChunk:
    chunks = [*map(to_text_chunk, texts), to_last_chunk(last, "tiny")]
    return reduce(add, chunks)


def test_a_plain_reply() -> None:
    usage = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=4)
    message = to_ai_message(view(usage=usage, finish_reason="length"), None)
    assert message.content == "hi"
    assert message.usage_metadata == {
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
        "input_token_details": {"cache_read": 4},
    }
    assert message.response_metadata == {
        "model_name": "default",
        "model_provider": "parrot",
        "finish_reason": "length",
        "session_id": "s1",
        "variable_id": "s1.reply",
    }


CALLS = (
    ToolCall(id="c1", name="add", arguments='{"a": 1}'),
    ToolCall(id="c2", name="now", arguments=""),
    ToolCall(id="c3", name="add", arguments='{"a": '),
    ToolCall(id="c4", name="add", arguments="[1]"),
)


def test_tool_calls_are_parsed_and_broken_ones_told_apart() -> None:
    message = to_ai_message(view(value=None, tool_calls=CALLS), None)
    assert message.content == ""
    assert [(call["id"], call["name"], call["args"]) for call in message.tool_calls] == [
        ("c1", "add", {"a": 1}),
        ("c2", "now", {}),
    ]
    assert [(call["id"], call["args"]) for call in message.invalid_tool_calls] == [
        ("c3", '{"a": '),
        ("c4", "[1]"),
    ]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    cut = to_ai_message(view(tool_calls=CALLS, finish_reason="length"), None)
    assert cut.response_metadata["finish_reason"] == "length"


def test_a_streamed_reply_adds_up_to_the_whole_one() -> None:
    last = view(value="a b", tool_calls=CALLS[:1], reasoning="h m", finish_reason="stop")
    texts = [ReplyText("h", "reasoning"), ReplyText(" m", "reasoning")]
    texts += [ReplyText("a"), ReplyText(" b")]
    chunk = streamed(*texts, last=last)
    whole = to_ai_message(last, "tiny")
    assert chunk.content == whole.content
    assert chunk.tool_calls == whole.tool_calls
    assert chunk.additional_kwargs == whole.additional_kwargs
    assert chunk.response_metadata == whole.response_metadata
    assert chunk.chunk_position == "last"


def test_reasoning_is_a_content_block() -> None:
    message = to_ai_message(view(reasoning="hm"), None)
    assert message.content_blocks == [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "hi"},
    ]


def test_logprobs_have_the_shape_of_openai() -> None:
    token = TokenLogprob(token="é", logprob=-0.5, top=(TopLogprob(token="e", logprob=-1.0),))
    message = to_ai_message(view(logprobs=(token,)), None)
    assert message.response_metadata["logprobs"] == {
        "content": [
            {
                "token": "é",
                "bytes": [195, 169],
                "logprob": -0.5,
                "top_logprobs": [{"token": "e", "bytes": [101], "logprob": -1.0}],
            }
        ]
    }


def test_a_reply_can_be_sent_back() -> None:
    from parrot_integrations.langchain.messages import to_message

    sent = to_message(to_ai_message(view(tool_calls=CALLS), None))
    assert isinstance(to_ai_message(view(), None), AIMessage)
    assert {call.id for call in sent.tool_calls} == {"c1", "c2", "c3", "c4"}
