"""``ParrotChatCompletion`` on a fake server: what is sent, and what comes back."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    ImageContent,
    StreamingChatMessageContent,
)
from semantic_kernel.exceptions import (
    ServiceInvalidAuthError,
    ServiceInvalidExecutionSettingsError,
    ServiceInvalidRequestError,
    ServiceInvalidResponseError,
    ServiceResponseException,
)
from semantic_kernel.functions import KernelArguments

import parrot_integrations as P
from parrot_backend.protocol import CallNode, JsonSchemaFormat, Message, OutputSegment, TextSegment
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    parrot_session,
)
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply
from tests.integrations.semantic_kernel.test_contents import CALL, RESULT, called

Settings = ParrotChatPromptExecutionSettings


def last_node(fake: FakeParrot) -> CallNode:
    (node,) = fake.submits[-1].nodes
    assert isinstance(node, CallNode)
    return node


async def ask(
    chat: ParrotChatCompletion, history: ChatHistory, settings: Any = None, **kwargs: Any
) -> ChatMessageContent:
    reply = await chat.get_chat_message_content(history, settings or Settings(), **kwargs)
    assert reply is not None
    return reply


async def stream(
    chat: ParrotChatCompletion, history: ChatHistory, settings: Any = None
) -> list[StreamingChatMessageContent]:
    chunks = chat.get_streaming_chat_message_contents(history, settings or Settings())
    return [chunk async for (chunk,) in chunks]


async def test_a_call_is_one_submit_that_ends_with_its_client(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory, prompt: str
) -> None:
    assert str(await ask(chat, chat_history)) == f"<{prompt}>"
    (submit,) = fake.submits
    assert (submit.close, submit.on_disconnect, submit.stream) == (True, "cancel", False)
    assert submit.outputs[0].criteria == P.UNSTATED
    assert fake.log == ["POST /v1/submit"]


async def test_the_exact_call(
    custom_client: P.AsyncParrotClient, fake: FakeParrot, model_id: str
) -> None:
    chat = ParrotChatCompletion(model_id, client=custom_client)
    history = ChatHistory(system_message="be")
    history.add_user_message("why")
    history.add_message(ChatMessageContent(role=AuthorRole.ASSISTANT, items=[CALL]))
    history.add_message(ChatMessageContent(role=AuthorRole.TOOL, items=[RESULT]))
    settings = Settings(
        temperature=0, stop=["."], seed=3, chat_template_kwargs={"enable_thinking": False}
    )
    await ask(chat, history, settings)
    assert last_node(fake) == CallNode(
        name="call-0",
        model=model_id,
        messages=(
            Message(role="system", content=(TextSegment(text="be"),)),
            Message(role="user", content=(TextSegment(text="why"),)),
            Message(role="assistant", content=(), tool_calls=called()),
            Message(
                role="tool",
                content=(TextSegment(text="3"),),
                name="m-add",
                tool_call_id="c1",
            ),
            Message(role="assistant", content=(OutputSegment(variable="reply-0"),)),
        ),
        sampling=P.Sampling(temperature=0, stop=(".",), seed=3),
        chat_template_kwargs={"enable_thinking": False},
    )


async def test_a_stream_gives_text_then_everything_else(
    chat: ParrotChatCompletion, fake: FakeParrot
) -> None:
    fake.details = lambda _: {"reasoning": "h m"}
    history = ChatHistory()
    history.add_user_message("a b")
    chunks = await stream(chat, history)
    assert [str(chunk) for chunk in chunks] == ["", "", "<a", " b>", ""]
    assert [str(chunk.items[0]) for chunk in chunks[:2]] == ["h", " m"]
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].metadata["usage"].completion_tokens == 2
    assert fake.submits[0].stream


async def test_several_replies_are_one_submit(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory
) -> None:
    settings = Settings(number_of_responses=3, seed=7)
    replies = await chat.get_chat_message_contents(chat_history, settings)
    assert len(replies) == 3
    (submit,) = fake.submits
    nodes = [node for node in submit.nodes if isinstance(node, CallNode)]
    assert [node.sampling.seed for node in nodes] == [7, 8, 9]
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="number_of_responses"):
        await stream(chat, chat_history, settings)


async def test_the_model_of_the_settings_wins_and_is_told(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory
) -> None:
    reply = await ask(chat, chat_history, PromptExecutionSettings(ai_model_id="other"))
    assert (last_node(fake).model, reply.ai_model_id) == ("other", "other")
    reply = await ask(chat, chat_history)
    assert (last_node(fake).model, reply.ai_model_id) == (None, "default")


async def test_a_form_of_the_output_is_sent(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory
) -> None:
    class City(BaseModel):
        name: str

    await ask(chat, chat_history, Settings(response_format=City))
    form = last_node(fake).sampling.response_format
    assert isinstance(form, JsonSchemaFormat)
    assert form.json_schema["properties"]["name"]["type"] == "string"


async def test_annotations_of_the_call_then_the_service_then_the_block(
    custom_client: P.AsyncParrotClient, fake: FakeParrot
) -> None:
    chat = ParrotChatCompletion(client=custom_client, app="own", perf="throughput")
    history = ChatHistory()
    history.add_message(ChatMessageContent(role=AuthorRole.SYSTEM, content="be", name="Ann"))
    history.add_user_message("why")

    async def told(service: ParrotChatCompletion, **settings: Any) -> tuple[Any, ...]:
        await ask(service, history, Settings(**settings))
        submit = fake.submits[-1]
        criteria = submit.outputs[0].criteria
        return submit.app, dict(submit.metadata), criteria and criteria.kind

    assert await told(chat) == ("own", {"stage": "Ann"}, "throughput")
    with parrot_session(app="block", session="b", stage="s", perf="latency", metadata={"k": 1}):
        assert await told(chat) == ("block", {"session": "b", "stage": "s", "k": 1}, "latency")
        bound = chat.with_session(session="c", stage="t").with_session(stage="u", metadata={"k": 2})
        assert await told(bound) == ("block", {"session": "c", "stage": "u", "k": 2}, "latency")
        labels = {"session": "d", "stage": "v", "k": 2}
        given = {"session": "d", "stage": "v", "app": "call", "perf": "throughput"}
        assert await told(bound, **given) == ("call", labels, "throughput")
    assert chat.annotation.session is None


async def test_an_urgency_that_is_none_is_an_error(
    chat: ParrotChatCompletion, chat_history: ChatHistory
) -> None:
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="fast"):
        await ask(chat.with_session(perf="fast"), chat_history)  # type: ignore[arg-type]


IMAGE = ChatHistory(
    messages=[ChatMessageContent(role=AuthorRole.USER, items=[ImageContent(uri="http://x/y.png")])]
)


@pytest.mark.parametrize("history", [ChatHistory(), IMAGE], ids=["empty", "image"])
async def test_a_history_that_cannot_be_sent(
    chat: ParrotChatCompletion, fake: FakeParrot, history: ChatHistory
) -> None:
    with pytest.raises(ServiceInvalidRequestError, match=r"empty|ImageContent"):
        await ask(chat, history)
    with pytest.raises(P.ParrotError):
        await stream(chat, history)
    with pytest.raises(ServiceInvalidRequestError):
        chat.foresee(history, Settings(), None)
    assert fake.log == []


async def test_a_name_that_is_too_long_is_the_framework_s_error(chat: ParrotChatCompletion) -> None:
    history = ChatHistory()
    history.add_message(ChatMessageContent(role=AuthorRole.USER, content="x", name="n" * 300))
    with pytest.raises(ServiceInvalidRequestError, match="name"):
        await ask(chat, history)


MISHAPS: list[tuple[Any, type[Exception]]] = [
    (error_reply(401, "unauthorized"), ServiceInvalidAuthError),
    (error_reply(403, "forbidden"), ServiceInvalidAuthError),
    (error_reply(404, "unknown_model"), ServiceInvalidRequestError),
    (error_reply(500, "internal"), ServiceInvalidResponseError),
    (error_reply(429, "saturated"), ServiceResponseException),
    (error_reply(503, "no_engine"), ServiceResponseException),
]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(("mishap", "kind"), MISHAPS, ids=lambda value: getattr(value, "text", ""))
async def test_errors_are_the_framework_s(
    chat: ParrotChatCompletion,
    fake: FakeParrot,
    chat_history: ChatHistory,
    mishap: Any,
    kind: type[Exception],
    is_streamed: bool,
) -> None:
    fake.mishaps = [mishap] * 3
    call = stream if is_streamed else ask
    with pytest.raises(kind) as caught:
        await call(chat, chat_history)
    assert isinstance(caught.value, P.ParrotError)


async def test_the_key_is_sent_and_not_told(fake: FakeParrot, chat_history: ChatHistory) -> None:
    transport = httpx.MockTransport(fake.ahandle)
    client = P.AsyncParrotClient("http://parrot.test", "sk-secret", transport=transport)
    chat = ParrotChatCompletion(client=client)
    await ask(chat, chat_history)
    assert fake.headers["Authorization"] == "Bearer sk-secret"
    fake.mishaps = [error_reply(401, "unauthorized")]
    with pytest.raises(ServiceInvalidAuthError) as caught:
        await ask(chat, chat_history)
    assert "secret" not in repr(chat) + str(caught.value) + repr(caught.value.__cause__)


async def test_a_reply_that_is_none_is_an_invalid_response(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory
) -> None:
    fake.mishaps = [httpx.Response(200, json={"not": "ours"})]
    with pytest.raises(ServiceInvalidResponseError):
        await ask(chat, chat_history)


async def test_a_call_that_takes_too_long_is_given_up(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory
) -> None:
    fake.held.add("reply-0")
    with pytest.raises(ServiceResponseException, match="given up") as caught:
        await ask(chat, chat_history, Settings(timeout_s=0.02))
    assert isinstance(caught.value, P.WaitTimeout)
    assert fake.count("POST /v1/sessions/s1/cancel") == 1


async def test_a_stream_that_is_left_reads_no_more(
    chat: ParrotChatCompletion, chat_history: ChatHistory
) -> None:
    chat_history.add_user_message("many words " * 50)
    left = chat.get_streaming_chat_message_contents(chat_history, Settings())
    async with aclosing(left) as chunks:
        await anext(chunks)
    # What is not closed is a warning when it is collected, and warnings are errors.


def test_what_a_call_would_be_is_known_before(
    chat: ParrotChatCompletion, chat_history: ChatHistory
) -> None:
    settings = PromptExecutionSettings(temperature=0.5, number_of_responses=2, timeout_s=3)
    before = settings.model_dump()
    (first, second), terms = chat.foresee(chat_history, settings, None)
    assert first == second
    assert first.messages is not None
    assert [message.content for message in first.messages] == ["test_prompt"]
    assert (first.options.sampling.temperature, terms.timeout_s) == (0.5, 3)
    assert settings.model_dump() == before


async def test_what_is_foreseen_is_what_is_sent(
    chat: ParrotChatCompletion, fake: FakeParrot, chat_history: ChatHistory
) -> None:
    settings = PromptExecutionSettings(temperature=0.5, stage="s")
    (call,), terms = chat.foresee(chat_history, settings, None)
    await ask(chat, chat_history, settings)
    assert call.to_node("call-0", "reply-0") == last_node(fake)
    assert terms.metadata == fake.submits[-1].metadata


async def test_function_choices_that_cannot_be(
    chat: ParrotChatCompletion, chat_history: ChatHistory
) -> None:
    auto = FunctionChoiceBehavior.Auto()
    several = Settings(function_choice_behavior=auto, number_of_responses=2)
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="number_of_responses"):
        await ask(chat, chat_history, several, kernel=Kernel())
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="number_of_responses"):
        chat.foresee(chat_history, several, Kernel())
    alone = Settings(function_choice_behavior=auto)
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="kernel"):
        await ask(chat, chat_history, alone)
    with pytest.raises(ServiceInvalidExecutionSettingsError, match="kernel"):
        chat.foresee(chat_history, alone, None)


async def test_prompt_functions_of_a_kernel(chat: ParrotChatCompletion, fake: FakeParrot) -> None:
    kernel = Kernel(services=[chat])
    arguments = KernelArguments(settings=Settings(max_tokens=5), x="<b> & co")
    assert str(await kernel.invoke_prompt("say {{$x}}", arguments=arguments)) == "<say <b> & co>"
    assert last_node(fake).sampling.max_tokens == 5
    pieces = [
        str(chunk)
        async for (chunk,) in kernel.invoke_prompt_stream("say {{$x}}", arguments=arguments)
    ]
    assert "".join(pieces) == "<say <b> & co>"


async def test_many_calls_at_once(chat: ParrotChatCompletion) -> None:
    def history(number: int) -> ChatHistory:
        chat_history = ChatHistory()
        chat_history.add_user_message(str(number))
        return chat_history

    replies = await asyncio.gather(*(ask(chat, history(i)) for i in range(100)))
    assert [str(reply) for reply in replies] == [f"<{i}>" for i in range(100)]
