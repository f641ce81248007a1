"""The provider by itself: what it sends, what it does when things fail."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from metagpt.config2 import Config
from metagpt.configs.llm_config import LLMConfig, LLMType
from metagpt.context import Context
from metagpt.provider.llm_provider_registry import create_llm_instance
from metagpt.utils.common import CodeParser
from openai import APIConnectionError, APITimeoutError

import parrot_integrations as P
from parrot_integrations.metagpt import ParrotLLM, install, parrot_session, watch_runs
from parrot_integrations.metagpt.endpoint import DEFAULT_MODEL
from parrot_integrations.metagpt.errors import Unreachable
from parrot_integrations.metagpt.runs import new_run
from parrot_integrations.planning.clients import Connection
from parrot_integrations.settings import ClientSettings
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.scripted_server import ScriptedServer

URL = "http://parrot.test"
IDEA = "Write a game in which snakes eat."


@pytest.fixture
def fake() -> Iterator[FakeParrot]:
    fake = FakeParrot(lambda prompt: f"```python\nprint({len(prompt)}) # a file of code\n```")
    yield fake
    fake.shut_down()


def config_of(**given: Any) -> LLMConfig:
    return LLMConfig(
        **{
            "api_type": LLMType.OPENAI,
            "base_url": f"{URL}/v1",
            "api_key": "sk-local",
            "model": DEFAULT_MODEL,
            "stream": False,
            **given,
        }
    )


@pytest.fixture
def llm(fake: FakeParrot) -> ParrotLLM:
    """A provider whose connection is the fake server."""
    llm = ParrotLLM(config_of(max_token=99, temperature=0.5))
    connect(llm, fake)
    return llm


def connect(llm: ParrotLLM, fake: FakeParrot) -> None:
    settings = ClientSettings(URL, max_attempts=2)
    client = P.AsyncParrotClient(settings=settings, transport=httpx.MockTransport(fake.ahandle))
    llm._connection = Connection(settings, own_async_client=client)


async def test_outside_a_team_a_call_is_one_submit(fake: FakeParrot, llm: ParrotLLM) -> None:
    with parrot_session(app="mine", session="s1"):
        reply = await llm.aask("hello", ["You are Bob."])
    assert reply.startswith("```python")
    (request,) = fake.submits
    assert (request.app, request.metadata, request.close) == ("mine", {"session": "s1"}, True)
    (node,) = request.nodes
    assert node.kind == "call"
    assert node.messages is not None
    assert [message.role for message in node.messages] == ["system", "user", "assistant"]
    assert (node.model, node.sampling.max_tokens, node.sampling.temperature) == (None, 99, 0.5)


async def test_a_team_has_one_session(fake: FakeParrot, llm: ParrotLLM) -> None:
    with watch_runs() as runs:
        async with new_run() as run:
            run.begin_with(IDEA)
            first = await llm.aask(f"Do this: {IDEA}")
            second = await llm.aask(f"Improve it:\n{first}")
    opening, one, two = fake.submits
    assert [v.value for v in opening.variables] == [IDEA]
    assert one.session_id == two.session_id == "s1"
    assert inputs_of(one) == ["idea"]
    assert inputs_of(two) == ["call"]
    assert fake.count("DELETE /v1/sessions/s1") == 1
    assert (runs[0].num_calls, runs[0].num_failed) == (2, 0)
    assert second != first


def inputs_of(request: Any) -> list[str]:
    (node,) = request.nodes
    parts = [part for message in node.messages for part in message.content]
    return [part.variable for part in parts if part.type == "input"]


async def test_what_metagpt_cuts_out_is_a_part_of_the_value(
    fake: FakeParrot, llm: ParrotLLM
) -> None:
    uninstall = install()
    try:
        async with new_run():
            reply = await llm.aask("Write code.")
            code = CodeParser.parse_code(block=None, text=reply, lang="python")
            await llm.aask(f"Review it:\n{code}")
    finally:
        uninstall()
    assert code == "print(18) # a file of code\n" or code.startswith("print(")
    (node,) = fake.submits[-1].nodes
    (found,) = [p for m in node.messages for p in m.content if p.type == "input"]  # type: ignore[union-attr]
    assert [transform.op for transform in found.transforms] == ["regex_group"]  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_lost_session_is_replaced(fake: FakeParrot, llm: ParrotLLM, stream: bool) -> None:
    async with new_run():
        first = await llm.acompletion_text([{"role": "user", "content": "one"}], stream=stream)
        fake.sessions.clear()
        again = [{"role": "user", "content": f"two: {first}"}]
        assert await llm.acompletion_text(again, stream=stream)
        # What an earlier session knew is plain text in the new one.
        assert inputs_of(fake.submits[-1]) == []
        assert await llm.acompletion_text(again, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_a_team", [False, True])
async def test_metagpts_own_retry_works(
    fake: FakeParrot, llm: ParrotLLM, stream: bool, in_a_team: bool
) -> None:
    # The client's own two attempts fail twice, then all is well.
    fake.mishaps += [httpx.ConnectError("away")] * 4
    ask = [{"role": "user", "content": "hello"}]
    if in_a_team:
        async with new_run():
            assert await llm.acompletion_text(ask, stream=stream)
    else:
        assert await llm.acompletion_text(ask, stream=stream)


async def test_a_server_that_stays_away(fake: FakeParrot, llm: ParrotLLM) -> None:
    fake.shut_down()
    async with new_run() as run:
        with pytest.raises(Unreachable) as caught:
            await llm.aask("hello")
    assert {APIConnectionError, P.ConnectionFailed} <= set(Unreachable.__mro__)
    assert caught.value.code
    assert str(caught.value)
    assert (run.num_calls, run.num_failed) == (0, 1)


async def test_a_call_that_fails_says_why(fake: FakeParrot, llm: ParrotLLM) -> None:
    def fail(_prompt: str) -> str:
        raise ValueError("prompt_too_long")

    fake.generate = fail
    async with new_run():
        with pytest.raises(P.ValueFailed) as caught:
            await llm.aask("hello")
    assert caught.value.code == "prompt_too_long"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_cancelled(fake: FakeParrot, llm: ParrotLLM, stream: bool) -> None:
    fake.held.add("call")
    async with new_run():
        task = asyncio.ensure_future(llm.aask("hello", stream=stream))
        while len(fake.submits) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # The server gives up what only a broken stream was for.
    assert fake.count("POST /v1/sessions/s1/cancel") == (0 if stream else 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_takes_too_long(fake: FakeParrot, llm: ParrotLLM, stream: bool) -> None:
    names = {f"call-{number}" for number in range(2, 8)}
    async with new_run():
        await llm.aask("opens the session", stream=stream)
        fake.held |= names
        with pytest.raises(P.WaitTimeout) as caught:
            await llm.aask("hello", stream=stream, timeout=0.1)
    # As OpenAI's client says it, so MetaGPT tries again: six times, with names of their own.
    assert APITimeoutError in type(caught.value).__mro__
    assert "0.1 s" in str(caught.value)
    assert {request.nodes[0].name for request in fake.submits[2:]} == names
    # The server gives up what only a broken stream was for.
    assert fake.count("POST /v1/sessions/s1/cancel") == (0 if stream else 6)


async def test_the_engine_need_not_tell_each_token(server: ScriptedServer) -> None:
    for stream, is_quiet in ((False, True), (True, False)):
        llm = ParrotLLM(config_of(base_url=server.url, max_token=20))
        async with new_run() as run:
            run.begin_with(IDEA)
            await llm.acompletion_text([{"role": "user", "content": "hello"}], stream=stream)
            (found,) = [s for s in server.service.coordinator.sessions if not s.is_closed]
            assert found.quiet is is_quiet


async def test_costs_are_counted(server: ScriptedServer) -> None:
    uninstall = install()
    llm_config = config_of(base_url=f"{server.url}/v1", calc_usage=True, model="scripted")
    context = Context(config=Config(llm=llm_config))
    try:
        llm = context.llm()
        await llm.aask("hello")
    finally:
        uninstall()
    assert llm.cost_manager.total_prompt_tokens > 0
    assert llm.cost_manager.total_completion_tokens > 0


async def test_what_metagpt_has_no_setting_for(fake: FakeParrot) -> None:
    uninstall = install(extra={"top_k": 3, "stop": ["END"]}, shares_first=True)
    try:
        llm = create_llm_instance(config_of())
        connect(llm, fake)
        await llm.aask("the project", ["You are Bob."])
    finally:
        uninstall()
    (node,) = fake.submits[0].nodes
    assert node.kind == "call"
    assert node.sampling.top_k == 3
    assert node.messages is not None
    assert [message.role for message in node.messages] == ["user", "assistant"]
    with pytest.raises(ValueError, match="top_k"):
        install(extra={"top_k": "many"})


def test_several_event_loops_leave_nothing_open(server: ScriptedServer) -> None:
    llm = ParrotLLM(config_of(base_url=server.url, max_token=20))

    async def ask() -> str:
        async with new_run():
            text: str = await llm.aask("hello")
            return text

    assert asyncio.run(ask()) == asyncio.run(ask())
    # What is not closed is a warning when it is collected, and warnings are errors.
    gc.collect()
