"""What goes MetaGPT's own way, to the server's OpenAI endpoint: named, labelled and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from metagpt.configs.llm_config import LLMConfig, LLMType
from metagpt.provider.openai_api import OpenAILLM
from openai import APIConnectionError, BadRequestError

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.metagpt import ParrotLLM, parrot_session, watch_runs
from parrot_integrations.metagpt.runs import new_run
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = [
    pytest.mark.e2e,
    # MetaGPT closes none of OpenAI's clients.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HELLO = [{"role": "user", "content": "hello"}]
LISTED = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
NAMED = [{"role": "user", "name": "bob", "content": "hello"}]
TOOLS: list[dict[str, Any]] = [
    {"role": "user", "content": "add"},
    {
        "role": "assistant",
        "content": "I add.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {"role": "user", "content": "and?"},
]

Ask = Callable[[OpenAILLM], Awaitable[Any]]

#: The ways of asking that the provider leaves to MetaGPT's own.
ASKS: dict[str, Ask] = {
    "a list": lambda llm: llm.acompletion_text(LISTED),
    "a list, streamed": lambda llm: llm.acompletion_text(LISTED, stream=True),
    "a name": lambda llm: llm.acompletion_text(NAMED),
    "tools": lambda llm: llm.acompletion_text(TOOLS),
    "a function": lambda llm: llm.aask_code(HELLO),
    "a completion": lambda llm: llm.acompletion(HELLO),
}


def config_of(server: ScriptedServer, **given: Any) -> LLMConfig:
    return LLMConfig(
        **{
            "api_type": LLMType.OPENAI,
            "base_url": f"{server.url}/v1",
            "api_key": "none",
            "model": "default",
            "max_token": 40,
            "calc_usage": False,
            "stream": False,
            **given,
        }
    )


@pytest.fixture
async def llm(server: ScriptedServer) -> AsyncIterator[ParrotLLM]:
    llm = ParrotLLM(config_of(server))
    yield llm
    await llm.aclient.close()


def text_of(reply: Any) -> Any:
    return reply if isinstance(reply, str | dict) else reply.choices[0].message.content


@pytest.mark.parametrize("way", ASKS)
async def test_the_default_model_has_a_name(
    server: ScriptedServer, llm: ParrotLLM, way: str
) -> None:
    plain = OpenAILLM(config_of(server, model="scripted"))
    assert text_of(await ASKS[way](llm)) == text_of(await ASKS[way](plain))
    assert llm.model == "default"
    await plain.aclient.close()


@pytest.mark.parametrize("messages", [NAMED, TOOLS, [], [{"role": "nobody", "content": "x"}]])
async def test_odd_messages_are_answered_as_metagpt_does(
    server: ScriptedServer, llm: ParrotLLM, messages: list[dict[str, Any]]
) -> None:
    plain = OpenAILLM(config_of(server, model="scripted"))

    async def outcome(of: OpenAILLM) -> object:
        try:
            return await of.acompletion_text(messages)
        except BadRequestError as exc:
            return (exc.status_code, exc.body)

    assert await outcome(llm) == await outcome(plain)
    await plain.aclient.close()


@pytest.mark.parametrize("way", ASKS)
async def test_they_are_counted_and_stand_in_the_runs_session(
    llm: ParrotLLM, server: ScriptedServer, way: str
) -> None:
    with watch_runs() as runs, parrot_session(app="mine"):
        async with new_run():
            await llm.acompletion_text(HELLO)
            await ASKS[way](llm)
            await llm.acompletion_text(HELLO)
    assert (runs[0].num_calls, runs[0].num_failed) == (3, 0)
    (view,) = runs[0].views
    assert view.app == "mine"
    assert len(view.nodes) == 3
    server.wait_until_idle()


async def test_outside_a_run_they_carry_what_is_said_of_them(
    llm: ParrotLLM, server: ScriptedServer
) -> None:
    with parrot_session(app="mine", session="a run \u67b6", stage="s1"):
        await llm.acompletion(HELLO)
    found = list(server.service.coordinator.sessions)[-1]
    assert found.app == "mine"
    assert dict(found.metadata) == {"session": "a run \u67b6"}
    assert [getattr(node, "stage", None) for node in found.graph.nodes.values()] == ["s1"]


async def test_parameters_that_metagpt_has_no_setting_for_go_along(server: ScriptedServer) -> None:
    provider = type("Long", (ParrotLLM,), {"extra": {"min_tokens": 30, "ignore_eos": True}})
    llm = provider(config_of(server))
    for max_token in (31, 33):
        llm.config.max_token = max_token
        assert (await llm.acompletion(HELLO)).usage.completion_tokens == max_token
    await llm.aclient.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda llm: llm.aask_code(HELLO, tool_choice="nonsense"),
        lambda llm: llm.acompletion_text(IMAGE),
        lambda llm: llm.acompletion([]),
    ],
)
async def test_their_failures_are_counted(llm: ParrotLLM, ask: Ask) -> None:
    async with new_run() as run:
        with pytest.raises(BadRequestError):
            await ask(llm)
    assert (run.num_calls, run.num_failed) == (0, 1)


@pytest.mark.parametrize("in_a_run", [False, True])
async def test_a_server_that_is_away_is_asked_again(in_a_run: bool) -> None:
    with scripted_server() as server:
        llm = ParrotLLM(config_of(server))
    llm.aclient.max_retries = 0
    if not in_a_run:
        with pytest.raises(APIConnectionError):
            await llm.acompletion_text(LISTED)
    else:
        async with new_run() as run:
            with pytest.raises(APIConnectionError):
                await llm.acompletion_text(LISTED)
        assert (run.num_calls, run.num_failed) == (0, 1)
    await llm.aclient.close()


async def test_a_stream_may_take_longer_than_its_timeout() -> None:
    extra = {"min_tokens": 60, "ignore_eos": True}
    provider = type("Long", (ParrotLLM,), {"extra": extra})
    with scripted_server(ScriptedConfig(token_s=0.02)) as server:
        llm = provider(config_of(server, max_token=60))
        inside = new_run()
        for context in (inside, asyncio.timeout(30)):
            async with context:
                assert await llm.acompletion_text(HELLO, stream=True, timeout=1)
        server.wait_until_idle()
        assert server.num_submits == 3
