"""``ParrotChatClient`` on a fake server: what is sent, and what comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from agent_framework import Agent, ChatContext, ChatResponse, Content, Message
from agent_framework.exceptions import (
    ChatClientException,
    ChatClientInvalidAuthException,
    ChatClientInvalidRequestException,
    ResponseInvalidatedException,
    SettingNotFoundError,
)
from pydantic import BaseModel

import parrot_integrations as P
from parrot_backend.protocol import CallNode, TextSegment, ToolCall, Usage
from parrot_integrations.agent_framework import ParrotChatClient, ParrotChatOptions, parrot_session
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.context import in_force
from parrot_integrations.planning.reply import Direct
from parrot_integrations.settings import ClientSettings
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply

URL = "http://parrot.test"
WHY = [Message("user", ["why"])]


def sent(fake: FakeParrot, i: int = -1) -> CallNode:
    (node,) = fake.submits[i].nodes
    assert isinstance(node, CallNode)
    return node


def chat_of(node: CallNode) -> list[tuple[str, str]]:
    """Role and text of each message but the reply."""
    assert node.messages is not None
    return [
        (m.role, "".join(s.text for s in m.content if isinstance(s, TextSegment)))
        for m in node.messages[:-1]
    ]


async def ask(
    chat: ParrotChatClient, messages: list[Message], stream: bool, options: Any = None
) -> ChatResponse[Any]:
    """Ask in one of the two ways."""
    if stream:
        response = chat.get_response(messages, stream=True, options=options)
        return await response.get_final_response()
    return await chat.get_response(messages, options=options)


async def test_a_call_is_one_submit_that_ends_with_its_client(
    chat: ParrotChatClient, fake: FakeParrot
) -> None:
    assert (await chat.get_response(WHY)).text == "<why>"
    (submit,) = fake.submits
    assert (submit.close, submit.on_disconnect, submit.stream) == (True, "cancel", False)
    assert submit.outputs[0].criteria == P.UNSTATED
    assert fake.log == ["POST /v1/submit"]


async def test_instructions_come_first(chat: ParrotChatClient, fake: FakeParrot) -> None:
    agent = Agent(chat, "Be brief.", name="teacher")
    response = await agent.run("why")
    assert response.messages[0].author_name == "teacher"
    assert chat_of(sent(fake)) == [("system", "Be brief."), ("user", "why")]


async def test_the_conversation_of_a_session_is_sent_again(
    chat: ParrotChatClient, fake: FakeParrot
) -> None:
    agent = Agent(chat, name="teacher")
    session = agent.create_session()
    await agent.run("a", session=session)
    fake.generate = lambda _: "b?"
    await agent.run("b", session=session)
    assert chat_of(sent(fake)) == [("user", "a"), ("assistant", "<a>"), ("user", "b")]


async def test_options_of_agent_and_run_are_sent(chat: ParrotChatClient, fake: FakeParrot) -> None:
    defaults: ParrotChatOptions = {"temperature": 0.5, "top_k": 4, "stage": "draft"}
    agent = Agent(chat, default_options=defaults)
    await agent.run("why", options={"temperature": 0.25, "max_tokens": 9, "model": "m"})
    node = sent(fake)
    assert node.model == "m"
    assert node.sampling == P.Sampling(temperature=0.25, top_k=4, max_tokens=9)
    assert fake.submits[0].metadata == {"stage": "draft"}


async def test_a_stream_gives_text_then_everything_else(
    chat: ParrotChatClient, fake: FakeParrot
) -> None:
    call = ToolCall(id="c", name="elsewhere", arguments='{"a": 1}')
    usage = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
    fake.details = lambda _: {"reasoning": "h m", "tool_calls": (call,), "usage": usage}
    stream = chat.get_response([Message("user", ["a b"])], stream=True)
    updates = [update async for update in stream]
    assert [update.text for update in updates] == ["", "", "<a", " b>", ""]
    thoughts = [c.text for u in updates for c in u.contents if c.type == "text_reasoning"]
    assert thoughts == ["h", " m"]
    whole = await stream.get_final_response()
    assert (whole.text, whole.finish_reason) == ("<a b>", "tool_calls")
    assert whole.usage_details is not None
    assert whole.usage_details["total_token_count"] == 7
    assert fake.submits[0].stream
    assert [c.type for c in whole.messages[0].contents] == [
        "text_reasoning", "text", "function_call",
    ]  # fmt: skip


class City(BaseModel):
    name: str


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_in_a_form_is_parsed(
    chat: ParrotChatClient, fake: FakeParrot, stream: bool
) -> None:
    fake.generate = lambda _: '{"name": "Oslo"}'
    found = await ask(chat, WHY, stream, {"response_format": City})
    assert found.value == City(name="Oslo")
    wanted = sent(fake).sampling.response_format
    assert wanted is not None
    assert wanted.type == "json_schema"


async def test_without_the_loop_of_tools_a_form_is_parsed_too(
    async_client: P.AsyncParrotClient, fake: FakeParrot
) -> None:
    fake.generate = lambda _: '{"name": "Oslo"}'
    chat = ParrotChatClient(
        async_client=async_client, function_invocation_configuration={"enabled": False}
    )
    for stream in (False, True):
        found = await ask(chat, WHY, stream, {"response_format": City})
        assert found.value == City(name="Oslo")


async def test_middleware_sees_every_call(chat: ParrotChatClient, fake: FakeParrot) -> None:
    seen = []

    async def note(context: ChatContext, call_next: Any) -> None:
        seen.append(len(context.messages))
        context.messages = [Message("user", ["who"])]
        await call_next()

    agent = Agent(chat, middleware=[note])
    assert (await agent.run("why")).text == "<who>"
    assert seen == [1]


# --- annotations ----------------------------------------------------------------------------------


async def test_options_win_over_the_block_and_the_block_over_the_client(fake: FakeParrot) -> None:
    client = P.AsyncParrotClient(URL, transport=httpx.MockTransport(fake.ahandle))
    chat = ParrotChatClient(async_client=client, app="own", perf="latency")
    with parrot_session(app="block", session="s", stage="t", perf="throughput"):
        await chat.get_response(WHY)
        await chat.get_response(WHY, options={"app": "call", "stage": "u", "user": "ann"})
    await chat.get_response(WHY)
    first, second, third = fake.submits
    assert (first.app, first.metadata) == ("block", {"session": "s", "stage": "t"})
    assert first.outputs[0].criteria == P.THROUGHPUT
    assert (second.app, second.metadata) == (
        "call",
        {"session": "s", "stage": "u", "user": "ann"},
    )
    assert (third.app, third.metadata) == ("own", {})
    assert third.outputs[0].criteria == P.LATENCY


# --- settings -------------------------------------------------------------------------------------


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "http://env.test/v1/")
    monkeypatch.setenv("PARROT_API_KEY", "secret")
    monkeypatch.setenv("PARROT_CHAT_MODEL_ID", "m")
    chat = ParrotChatClient()
    assert (chat.service_url(), chat.model) == ("http://env.test", "m")
    assert chat._connection.settings.api_key == "secret"
    assert "secret" not in chat.to_json() + repr(vars(chat))
    other = ParrotChatClient("n", base_url=URL, api_key="other")
    assert (other.service_url(), other.model) == (URL, "n")
    assert other._connection.settings.api_key == "other"


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(f"PARROT_BASE_URL={URL}\nPARROT_CHAT_MODEL_ID=m\n")
    chat = ParrotChatClient(env_file_path=str(path))
    assert (chat.service_url(), chat.model) == (URL, "m")


def test_telemetry_gets_no_credentials() -> None:
    chat = ParrotChatClient(base_url="http://user:secret@host:1/p?token=secret")
    assert chat.service_url() == "http://host:1/p"
    assert "secret" not in repr(vars(chat))


@pytest.mark.parametrize("kind", [P.NotConfigured, SettingNotFoundError])
def test_no_server_is_an_error_of_both(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="parrot serve"):
        ParrotChatClient()


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([], {}),
        ([Message("user", [Content.from_uri("http://x/y.png", media_type="image/png")])], {}),
        (WHY, {"logit_bias": {"1": 1.0}}),
        (WHY, {"temperature": 9.0}),
        (WHY, {"perf": "soon"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_asked_is_never_sent(
    chat: ParrotChatClient, fake: FakeParrot, messages: Any, options: Any, stream: bool
) -> None:
    with pytest.raises(ChatClientInvalidRequestException) as caught:
        await ask(chat, messages, stream, options)
    assert fake.log == []
    assert isinstance(caught.value, P.ProgramError)
    assert str(caught.value).endswith(" [invalid_options]")
    assert "Error(" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("status", "code", "kinds"),
    [
        (401, "unauthorized", (P.RequestRejected, ChatClientInvalidAuthException)),
        (404, "unknown_model", (P.RequestRejected, ChatClientInvalidRequestException)),
        (500, "internal", (P.ServerFailed, ChatClientException)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_belong_to_both_trees(
    chat: ParrotChatClient,
    fake: FakeParrot,
    status: int,
    code: str,
    kinds: tuple[type[Exception], ...],
    stream: bool,
) -> None:
    fake.mishaps = [error_reply(status, code)] * 9
    with pytest.raises(kinds[0]) as caught:
        await ask(chat, WHY, stream)
    assert isinstance(caught.value, kinds[1])


async def test_a_failed_call_tells_its_code(chat: ParrotChatClient, fake: FakeParrot) -> None:
    def generate(_: str) -> str:
        raise ValueError("prompt_too_long")

    fake.generate = generate
    with pytest.raises(ChatClientInvalidRequestException) as caught:
        await chat.get_response(WHY)
    assert isinstance(caught.value, P.ValueFailed)
    assert caught.value.code == "prompt_too_long"


async def test_a_stream_that_begins_anew_is_void(chat: ParrotChatClient, fake: FakeParrot) -> None:
    fake.held = {"reply-0"}
    stream = chat.get_response(WHY, stream=True)
    first = asyncio.ensure_future(anext(stream))
    while not fake.submits:
        await asyncio.sleep(0)
    fake.say("reply-0", "one")
    assert (await first).text == "one"
    fake.restart("reply-0")
    fake.finish("reply-0", "two")
    with pytest.raises(ResponseInvalidatedException) as caught:
        await stream.get_final_response()
    assert isinstance(caught.value, P.StreamRestarted)


# --- plans ----------------------------------------------------------------------------------------


class Asked:
    """A plan that has no call, and notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> None:
        self.calls.append(call)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_plan_in_force_is_asked_first(
    chat: ParrotChatClient, fake: FakeParrot, stream: bool
) -> None:
    plan = Asked()
    with in_force(plan):
        await ask(chat, WHY, stream, {"max_tokens": 3})
    (call,) = plan.calls
    assert call.texts == ("why",)
    assert call.options.sampling.max_tokens == 3
    assert len(fake.submits) == 1
