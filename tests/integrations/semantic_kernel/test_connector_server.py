"""The services over real connections to a real server with a scripted engine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from semantic_kernel.contents import ChatHistory
from semantic_kernel.exceptions import (
    ServiceInvalidRequestError,
    ServiceResponseException,
)

import parrot_integrations as P
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotTextCompletion,
    ParrotTextPromptExecutionSettings,
)
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e

Settings = ParrotChatPromptExecutionSettings
SHORT = Settings(max_tokens=8, temperature=0)
#: About ten seconds of work, which nobody waits for.
LONG = Settings(max_tokens=5_000, ignore_eos=True)
LONG_TEXT = ParrotTextPromptExecutionSettings(max_tokens=5_000, ignore_eos=True)


@pytest.fixture
def slow() -> Iterator[ScriptedServer]:
    """A server that takes its time for each token."""
    with scripted_server(ScriptedConfig(token_s=0.002)) as server:
        yield server


def asking(text: str = "why") -> ChatHistory:
    history = ChatHistory()
    history.add_user_message(text)
    return history


async def ask(chat: ParrotChatCompletion, text: str = "why", settings: Any = SHORT) -> str:
    return str(await chat.get_chat_message_content(asking(text), settings))


async def stream(chat: ParrotChatCompletion, text: str = "why", settings: Any = SHORT) -> list[str]:
    chunks = chat.get_streaming_chat_message_contents(asking(text), settings)
    return [str(chunk) async for (chunk,) in chunks]


async def test_a_stream_is_the_same_text(slow: ScriptedServer) -> None:
    chat = ParrotChatCompletion(host=slow.url)
    pieces = await stream(chat)
    assert len(pieces) > 3
    assert "".join(pieces) == await ask(chat)
    text = ParrotTextCompletion(host=slow.url)
    wanted = ParrotTextPromptExecutionSettings(max_tokens=8, temperature=0)
    chunks = [chunk async for (chunk,) in text.get_streaming_text_contents("why", wanted)]
    assert "".join(map(str, chunks)) == str(await text.get_text_content("why", wanted))


async def test_many_calls_at_once(server: ScriptedServer) -> None:
    chat = ParrotChatCompletion(host=server.url)
    texts = [f"number {i}" for i in range(100)]
    replies = await asyncio.gather(*(ask(chat, text) for text in texts))
    streams = await asyncio.gather(*(stream(chat, text) for text in texts))
    assert ["".join(pieces) for pieces in streams] == replies
    assert len(set(replies)) == 100
    server.wait_until_empty()


async def test_a_stream_that_is_left_is_cancelled(slow: ScriptedServer) -> None:
    chat = ParrotChatCompletion(host=slow.url)
    chunks = chat.get_streaming_chat_message_contents(asking(), LONG)
    async with aclosing(chunks) as left:
        await anext(left)
        assert slow.service.coordinator.num_unfinished_calls == 1
    await asyncio.to_thread(slow.wait_until_idle)


async def test_a_stream_that_nobody_closes_is_cancelled(slow: ScriptedServer) -> None:
    async for _ in ParrotChatCompletion(host=slow.url).get_streaming_chat_message_content(
        asking(), LONG
    ):
        break
    await asyncio.to_thread(slow.wait_until_idle)


async def test_a_text_stream_that_is_left_is_cancelled(slow: ScriptedServer) -> None:
    text = ParrotTextCompletion(host=slow.url)
    async for _ in text.get_streaming_text_contents("why", LONG_TEXT):
        break
    await asyncio.to_thread(slow.wait_until_idle)


@pytest.mark.parametrize("call", [ask, stream])
async def test_a_task_that_is_cancelled_cancels_its_call(slow: ScriptedServer, call: Any) -> None:
    task = asyncio.create_task(call(ParrotChatCompletion(host=slow.url), "why", LONG))
    while not slow.service.coordinator.num_unfinished_calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(slow.wait_until_idle)


@pytest.mark.parametrize("call", [ask, stream])
async def test_a_call_that_timed_out_is_cancelled(slow: ScriptedServer, call: Any) -> None:
    chat = ParrotChatCompletion(host=slow.url, timeout_s=0.05)
    with pytest.raises(ServiceResponseException) as caught:
        await call(chat, "why", LONG)
    assert isinstance(caught.value, P.WaitTimeout)
    await asyncio.to_thread(slow.wait_until_idle)


async def test_several_replies_that_are_cancelled(slow: ScriptedServer) -> None:
    several = LONG.model_copy(update={"number_of_responses": 3})
    task = asyncio.create_task(ask(ParrotChatCompletion(host=slow.url), "why", several))
    while slow.service.coordinator.num_unfinished_calls < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(slow.wait_until_idle)


async def test_a_server_that_is_down_and_comes_back() -> None:
    with scripted_server() as server:
        url = server.url
        chat = ParrotChatCompletion(host=url)
        before = await ask(chat)
    for call in (ask, stream):
        with pytest.raises(ServiceResponseException) as caught:
            await call(chat)
        assert isinstance(caught.value, P.ConnectionFailed)
    with scripted_server(port=int(url.rsplit(":", 1)[1])):
        assert await ask(chat) == before
        assert "".join(await stream(chat)) == before


async def test_requests_that_the_server_refuses(server: ScriptedServer) -> None:
    chat = ParrotChatCompletion(host=server.url)
    with pytest.raises(ServiceInvalidRequestError, match="unknown_model"):
        await ask(chat, settings=Settings(ai_model_id="nobody"))
    with pytest.raises(ServiceInvalidRequestError, match="prompt_too_long"):
        await ask(chat, "word " * 10_000)


async def test_a_form_is_kept(server: ScriptedServer) -> None:
    chat = ParrotChatCompletion(host=server.url)
    form = {"type": "choice", "choices": ["yes", "no"]}
    assert await ask(chat, settings=Settings(response_format=form)) in ("yes", "no")


LOOPS = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from semantic_kernel.contents import ChatHistory
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion, ParrotChatPromptExecutionSettings as Settings
)

chat = ParrotChatCompletion(host=sys.argv[1])
history, short = ChatHistory(system_message="be"), Settings(max_tokens=4)

async def both(_=None):
    replies = await asyncio.gather(
        *(chat.get_chat_message_content(history, short) for _ in range(5))
    )
    chunks = chat.get_streaming_chat_message_content(history, short)
    return {*map(str, replies), "".join([str(chunk) async for chunk in chunks])}

assert asyncio.run(both()) == asyncio.run(both())
with ThreadPoolExecutor(4) as pool:
    assert len(set.union(*pool.map(lambda _: asyncio.run(both()), range(8)))) == 1
"""

NESTED = """
import asyncio, sys
import nest_asyncio
from semantic_kernel.contents import ChatHistory
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion, ParrotChatPromptExecutionSettings as Settings
)

chat = ParrotChatCompletion(host=sys.argv[1])
history = ChatHistory(system_message="be")
short, long = Settings(max_tokens=4), Settings(max_tokens=5_000, ignore_eos=True)

async def inner():
    return str(await chat.get_chat_message_content(history, short))

async def outer():
    nest_asyncio.apply()
    replies = [await inner(), asyncio.run(inner())]
    replies += await asyncio.gather(inner(), asyncio.to_thread(lambda: asyncio.run(inner())))
    assert len(set(replies)) == 1
    async for _ in chat.get_streaming_chat_message_content(history, long):
        break
    await inner()

# Only the second run is nest_asyncio's own, which closes neither its loop nor generators.
asyncio.run(outer())
asyncio.run(outer())
"""


async def run_program(program: list[str], *options: str) -> tuple[int, str]:
    """Run a program in an interpreter of its own; return its exit status and what it complains."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *options, "-c", *program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


async def test_several_event_loops_leave_nothing_open(slow: ScriptedServer) -> None:
    # What is not closed is a warning when it is collected.
    assert await run_program([LOOPS, slow.url], "-W", "always::ResourceWarning") == (0, "")
    assert slow.num_submits == 60


async def test_nested_event_loops(slow: ScriptedServer) -> None:
    assert await run_program([NESTED, slow.url]) == (0, "")
    assert slow.num_submits == 12
    await asyncio.to_thread(slow.wait_until_idle)
