"""Chat histories as messages, and replies as contents."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.contents import (
    AnnotationContent,
    AudioContent,
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FileReferenceContent,
    FunctionCallContent,
    FunctionResultContent,
    ImageContent,
    ReasoningContent,
    StreamingReasoningContent,
    StreamingTextContent,
    TextContent,
)
from semantic_kernel.contents.annotation_content import CitationType
from semantic_kernel.contents.binary_content import BinaryContent
from semantic_kernel.contents.utils.finish_reason import FinishReason

from parrot_backend.protocol import TokenLogprob, ToolCall, Usage, VariableView
from parrot_integrations.planning.calls import ChatMessage
from parrot_integrations.planning.reply import ReplyEvent, ReplyText
from parrot_integrations.semantic_kernel.contents import (
    to_chat_chunk,
    to_chat_message,
    to_text,
    to_text_chunk,
)
from parrot_integrations.semantic_kernel.histories import instructing_name, to_messages

CALL = FunctionCallContent(id="c1", name="m-add", arguments={"a": "ü"})
RESULT = FunctionResultContent(id="c1", name="m-add", result=3)


def history(*messages: ChatMessageContent) -> ChatHistory:
    return ChatHistory(messages=list(messages))


def message(role: AuthorRole, *items: Any, **more: Any) -> ChatMessageContent:
    return ChatMessageContent(role=role, items=list(items), **more)


def called(**changed: Any) -> tuple[ToolCall, ...]:
    return (ToolCall(**{"id": "c1", "name": "m-add", "arguments": '{"a": "ü"}', **changed}),)


T = TextContent
MESSAGES = [
    (message(AuthorRole.SYSTEM, T(text="be"), name="Ann"), ChatMessage("system", "be", "Ann")),
    (message(AuthorRole.DEVELOPER, T(text="be")), ChatMessage("system", "be")),
    (message(AuthorRole.USER, T(text="a"), T(text=" b")), ChatMessage("user", "a b")),
    (message(AuthorRole.USER), ChatMessage("user", "")),
    (
        message(AuthorRole.ASSISTANT, ReasoningContent(text="hm"), T(text="x"), CALL),
        ChatMessage("assistant", "x", tool_calls=called()),
    ),
    (
        message(AuthorRole.ASSISTANT, FunctionCallContent(name="f", arguments="not json")),
        ChatMessage(
            "assistant", "", tool_calls=called(id="call_0", name="f", arguments="not json")
        ),
    ),
    (
        message(AuthorRole.ASSISTANT, FunctionCallContent(call_id="r", name="f")),
        ChatMessage("assistant", "", tool_calls=called(id="r", name="f", arguments="{}")),
    ),
    (
        message(
            AuthorRole.ASSISTANT,
            T(text="x"),
            AnnotationContent(type=CitationType.URL_CITATION, quote="x"),
        ),
        ChatMessage("assistant", "x"),
    ),
    (message(AuthorRole.TOOL, RESULT), ChatMessage("tool", "3", "m-add", tool_call_id="c1")),
    (
        message(AuthorRole.TOOL, FunctionResultContent(id="c", name="f", result=None)),
        ChatMessage("tool", "", "f", tool_call_id="c"),
    ),
]


@pytest.mark.parametrize(("given", "sent"), MESSAGES, ids=lambda value: repr(value)[:40])
def test_messages(given: ChatMessageContent, sent: ChatMessage) -> None:
    assert to_messages(history(given)) == (sent,)


def test_each_result_of_a_message_is_a_message() -> None:
    two = message(AuthorRole.TOOL, RESULT, FunctionResultContent(id="c2", name="f", result="y"))
    assert [found.tool_call_id for found in to_messages(history(two))] == ["c1", "c2"]


REFUSED = [
    (message(AuthorRole.USER, ImageContent(uri="http://x/y.png")), "user .* ImageContent"),
    (message(AuthorRole.USER, T(text="a"), AudioContent(uri="http://x/y.wav")), "AudioContent"),
    (message(AuthorRole.USER, BinaryContent(uri="http://x/y")), "BinaryContent"),
    (message(AuthorRole.USER, FileReferenceContent(file_id="f")), "FileReferenceContent"),
    (message(AuthorRole.USER, CALL), "user .* FunctionCallContent"),
    (message(AuthorRole.ASSISTANT, RESULT), "assistant .* FunctionResultContent"),
    (message(AuthorRole.TOOL, T(text="a")), "FunctionResultContent"),
]


@pytest.mark.parametrize(("given", "told"), REFUSED, ids=lambda value: repr(value)[:40])
def test_what_is_no_text_is_refused_by_name(given: ChatMessageContent, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        to_messages(history(given))


def test_an_empty_history_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        to_messages(ChatHistory())


@given(st.lists(st.text(), max_size=4))
def test_texts_are_never_changed(texts: list[str]) -> None:
    items = [TextContent(text=text) for text in texts]
    (found,) = to_messages(history(message(AuthorRole.USER, *items)))
    assert found.content == "".join(texts)


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (message(AuthorRole.SYSTEM, T(text="x"), name="Ann"), "Ann"),
        (message(AuthorRole.SYSTEM, T(text="x")), None),
        (message(AuthorRole.USER, T(text="x"), name="Bob"), None),
    ],
)
def test_who_instructs(first: ChatMessageContent, name: str | None) -> None:
    assert instructing_name(history(first)) == name
    assert instructing_name(ChatHistory()) is None


VIEW = VariableView(
    id="s1.reply",
    name="reply",
    state="ready",
    value="a b",
    usage=Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2),
    finish_reason="stop",
    tool_calls=(
        ToolCall(id="c1", name="m-add", arguments='{"a": 1}'),
        ToolCall(id="c2", name="m-add", arguments="{}"),
    ),
    reasoning="h m",
    logprobs=(TokenLogprob(token="a", logprob=-0.5),),
)
PIECES: list[ReplyEvent] = [
    ReplyText("h", "reasoning"),
    ReplyText(" m", "reasoning"),
    ReplyText("a"),
    ReplyText(" b"),
    VIEW,
]


def check_metadata(metadata: dict[str, Any]) -> None:
    assert metadata["session_id"] == "s1"
    assert metadata["variable_id"] == metadata["id"] == "s1.reply"
    assert metadata["logprobs"]["content"][0]["logprob"] == -0.5
    usage = metadata["usage"]
    assert isinstance(usage, CompletionUsage)
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 4)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2


def test_a_whole_reply() -> None:
    reply = to_chat_message(VIEW, "m")
    assert [type(item) for item in reply.items] == [
        ReasoningContent,
        TextContent,
        FunctionCallContent,
        FunctionCallContent,
    ]
    assert (reply.content, str(reply.items[0]), reply.ai_model_id) == ("a b", "h m", "m")
    assert (reply.role, reply.finish_reason) == (AuthorRole.ASSISTANT, FinishReason.TOOL_CALLS)
    assert reply.inner_content is VIEW
    check_metadata(reply.metadata)


def test_pieces_add_up_to_the_reply() -> None:
    chunks = [to_chat_chunk(piece, "m", 2) for piece in PIECES]
    assert all(chunk.function_invoke_attempt == 2 for chunk in chunks)
    assert [chunk.content for chunk in chunks] == ["", "", "a", " b", ""]
    whole = reduce(add, chunks)
    assert [type(item) for item in whole.items] == [
        StreamingReasoningContent,
        StreamingTextContent,
        FunctionCallContent,
        FunctionCallContent,
    ]
    assert to_messages(history(whole)) == to_messages(history(to_chat_message(VIEW, "m")))
    assert (whole.finish_reason, whole.role) == (FinishReason.TOOL_CALLS, AuthorRole.ASSISTANT)
    check_metadata(whole.metadata)


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", FinishReason.STOP), ("length", FinishReason.LENGTH), ("odd", None), (None, None)],
)
def test_finish_reasons(reason: str | None, told: FinishReason | None) -> None:
    view = VIEW.model_copy(update={"finish_reason": reason, "tool_calls": ()})
    reply = to_chat_message(view, "m")
    assert reply.finish_reason == told
    assert reply.metadata["finish_reason"] == reason


def test_an_empty_reply_is_an_empty_message() -> None:
    view = VariableView(id="s.r", name="r", state="ready", value="")
    reply = to_chat_message(view, "m")
    assert (reply.items, str(reply), reply.metadata["usage"]) == ([], "", None)
    assert to_messages(history(reply)) == (ChatMessage("assistant", ""),)
    assert to_text(view, "m").text == ""


def test_replies_to_raw_prompts() -> None:
    whole = to_text(VIEW, "m")
    assert (whole.text, whole.ai_model_id) == ("a b", "m")
    check_metadata(whole.metadata)
    chunks = [to_text_chunk(piece, "m") for piece in PIECES[2:]]
    assert str(reduce(add, chunks)) == "a b"
    check_metadata(chunks[-1].metadata)


def test_replies_are_serialised() -> None:
    reply = to_chat_message(VIEW, "m")
    again = ChatHistory.restore_chat_history(history(reply).serialize())
    assert to_messages(again) == to_messages(history(reply))
