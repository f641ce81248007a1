"""The client on a fake server: what it sends, what it says of itself, and its config."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from autogen_core import EVENT_LOGGER_NAME, CancellationToken, FunctionCall
from autogen_core.logging import LLMCallEvent, LLMStreamEndEvent, LLMStreamStartEvent
from autogen_core.model_context import TokenLimitedChatCompletionContext
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import ToolSchema
from pydantic import BaseModel

import parrot_integrations as P
from parrot_backend.protocol import Usage
from parrot_integrations.autogen import ParrotChatCompletionClient, parrot_session
from tests.helpers.fake_parrot import FakeParrot
from tests.integrations.autogen.conftest import URL

HELLO = UserMessage(content="hello", source="ann")
CALLED: list[LLMMessage] = [
    AssistantMessage(content=[FunctionCall("c1", "{}", "add")], source="bob"),
    FunctionExecutionResultMessage(
        content=[FunctionExecutionResult(content="3", name="add", call_id="c1", is_error=False)]
    ),
]


async def test_a_call_is_one_submit(fake: FakeParrot, client: ParrotChatCompletionClient) -> None:
    result = await client.create(
        [SystemMessage(content="Be brief."), HELLO], extra_create_args={"temperature": 0}
    )
    assert isinstance(result.content, str)
    assert "hello" in result.content
    (request,) = fake.submits
    (node,) = request.nodes
    assert node.kind == "call"
    assert node.messages is not None
    assert [(m.role, m.name) for m in node.messages[:2]] == [("system", None), ("user", "ann")]
    assert node.sampling.temperature == 0
    assert request.close
    assert request.on_disconnect == "cancel"


async def test_a_stream_ends_with_the_result(
    fake: FakeParrot, client: ParrotChatCompletionClient
) -> None:
    *pieces, result = [piece async for piece in client.create_stream([HELLO])]
    assert isinstance(result, CreateResult)
    assert "".join(str(piece) for piece in pieces) == result.content


async def test_annotations_of_the_call_win(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    client = ParrotChatCompletionClient(
        async_client=async_client, app="own", stage="own", perf="throughput"
    )
    await client.create([HELLO])
    with parrot_session(app="block", session="s1"):
        await client.create([HELLO], extra_create_args={"stage": "mine", "perf": "latency"})
    first, second = fake.submits
    assert (first.app, first.metadata) == ("own", {})
    assert (second.app, second.metadata) == ("block", {"session": "s1"})
    assert fake.stages == ["own", "mine"]
    kinds = [request.outputs[0].criteria for request in (first, second)]
    assert [kind.kind for kind in kinds if kind is not None] == ["throughput", "latency"]


async def test_errors_are_parrots(fake: FakeParrot, client: ParrotChatCompletionClient) -> None:
    fake.generate = lambda _prompt: (_ for _ in ()).throw(ValueError("prompt_too_long"))
    with pytest.raises(P.ValueFailed) as caught:
        await client.create([HELLO])
    assert caught.value.code == "prompt_too_long"
    with pytest.raises(ValueError, match="unknown arguments"):
        await client.create([HELLO], extra_create_args={"functions": []})
    assert len(fake.submits) == 1


def test_arguments_are_checked_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(P.NotConfigured):
        ParrotChatCompletionClient()
    monkeypatch.setenv("PARROT_BASE_URL", URL)
    wrongs: list[dict[str, Any]] = [
        {"tempreature": 0},
        {"temperature": 3},
        {"perf": "fast"},
        {"timeout_s": -1},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ParrotChatCompletionClient(**wrong)


def test_the_config_makes_the_same_client_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = P.Criteria(ttft_s=0.5)
    client = ParrotChatCompletionClient(
        "m", base_url=URL, api_key="sk-secret", app="a", perf=targets, temperature=0.5, stop=["x"]
    )
    dumped = client.dump_component()
    assert "sk-secret" not in dumped.model_dump_json()
    assert dumped.provider == "parrot_integrations.autogen.ParrotChatCompletionClient"
    monkeypatch.setenv("PARROT_API_KEY", "sk-other")
    loaded = ChatCompletionClient.load_component(dumped.model_dump())
    assert isinstance(loaded, ParrotChatCompletionClient)
    assert loaded.dump_component() == dumped
    assert loaded._connection.settings.api_key == "sk-other"
    assert loaded.model_info == client.model_info == loaded.capabilities


def test_the_config_holds_no_secret_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://user:pw@parrot.test:8642"
    for base_url in (address, f"{address}/v1", f"{address}/?token=pw"):
        dumped = ParrotChatCompletionClient(base_url=base_url).dump_component()
        assert "pw" not in dumped.model_dump_json()
        assert dumped.config["base_url"] == "http://parrot.test:8642"
    for known, used in [
        (None, "http://parrot.test:8642"),
        ("http://other:pw@elsewhere", "http://parrot.test:8642"),
        (f"{address}/v1", address),
    ]:
        if known is not None:
            monkeypatch.setenv("PARROT_BASE_URL", known)
        loaded = ParrotChatCompletionClient.load_component(dumped)
        assert loaded._connection.settings.base_url == used
        assert loaded.dump_component() == dumped


class Sum(BaseModel):
    total: int


async def test_a_class_as_the_form_of_replies_can_be_written_down(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    given: list[Any] = [Sum, {"type": "json_object"}, None]
    for form in given:
        client = ParrotChatCompletionClient(async_client=async_client, response_format=form)
        dumped = json.loads(client.dump_component().model_dump_json())
        loaded = ParrotChatCompletionClient.load_component(dumped)
        loaded._connection = client._connection
        await client.create([HELLO])
        await loaded.create([HELLO])
        forms = [request.nodes[0].sampling.response_format for request in fake.submits[-2:]]  # type: ignore[union-attr]
        assert forms[0] == forms[1]
        assert (forms[0] is None) == (form is None)


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_stand_in_the_event_log(
    fake: FakeParrot,
    client: ParrotChatCompletionClient,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=0)
    fake.details = lambda _node: {"usage": usage}

    async def ask() -> None:
        add: ToolSchema = {"name": "add", "description": "Add."}
        if stream:
            async for _ in client.create_stream([HELLO, *CALLED], tools=[add]):
                pass
        else:
            await client.create([HELLO, *CALLED], tools=[add])

    await ask()
    assert caplog.records == []
    with caplog.at_level(logging.INFO, EVENT_LOGGER_NAME):
        await ask()
    events: list[Any] = [record.msg for record in caplog.records]
    told = [json.loads(str(event)) for event in events]
    kinds = [LLMStreamStartEvent, LLMStreamEndEvent] if stream else [LLMCallEvent]
    assert [type(event) for event in events] == kinds
    assert [message["role"] for message in told[0]["messages"]] == ["user", "assistant", "tool"]
    assert told[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "add"
    assert told[0]["messages"][2]["tool_call_id"] == "c1"
    assert told[0]["tools"][0]["function"]["name"] == "add"
    assert (events[-1].prompt_tokens, events[-1].completion_tokens) == (10, 3)
    assert told[-1]["response"]["usage"]["prompt_tokens"] == 10


async def test_usage_is_added_up(fake: FakeParrot, client: ParrotChatCompletionClient) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=0)
    fake.details = lambda _node: {"usage": usage}
    assert client.total_usage().prompt_tokens == 0
    await client.create([HELLO])
    await client.create([HELLO])
    assert client.actual_usage().completion_tokens == 3
    assert client.total_usage().prompt_tokens == 20
    # Five characters took ten tokens.
    assert client.count_tokens([UserMessage(content="four", source="ann")]) == 8


async def test_remaining_tokens_keep_a_context_short(async_client: P.AsyncParrotClient) -> None:
    with pytest.raises(ValueError, match="context_tokens"):
        ParrotChatCompletionClient(async_client=async_client).remaining_tokens([HELLO])
    client = ParrotChatCompletionClient(async_client=async_client, context_tokens=100)
    assert client.remaining_tokens([UserMessage(content="a" * 80, source="ann")]) == 80
    context = TokenLimitedChatCompletionContext(client)
    for text in "abcdef":
        await context.add_message(UserMessage(content=text * 100, source="ann"))
    assert len(await context.get_messages()) < 6


@pytest.mark.parametrize("stream", [False, True])
async def test_a_token_that_is_cancelled_before(
    fake: FakeParrot, client: ParrotChatCompletionClient, stream: bool
) -> None:
    token = CancellationToken()
    token.cancel()

    async def ask() -> object:
        if stream:
            return await anext(client.create_stream([HELLO], cancellation_token=token))
        return await client.create([HELLO], cancellation_token=token)

    with pytest.raises(asyncio.CancelledError):
        await ask()
    assert fake.submits == []
