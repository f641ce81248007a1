"""The models over a real connection to a real server with a scripted engine."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError, ModelNotFoundError, ModelTimeoutError
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

import parrot_integrations as P
from parrot_integrations.langchain import ChatParrot, ParrotLLM, parrot_session
from tests.helpers.served import parrot_serve

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with parrot_serve("--engine", "scripted", "--token-ms", "2") as url:
        yield url


@pytest.fixture
def chat(url: str) -> ChatParrot:
    return ChatParrot(base_url=url, max_tokens=8, temperature=0)


def running_calls(url: str) -> float:
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith("parrot_num_requests_running "):
            return float(line.split()[1])
    raise AssertionError("no such metric")


def await_idle(url: str) -> None:
    until_s = time.monotonic() + 5
    while running_calls(url) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert running_calls(url) == 0


def test_a_reply_tells_usage_and_ids(chat: ChatParrot) -> None:
    reply = chat.invoke("why is the sky blue")
    assert reply.text
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] <= 8
    metadata = reply.response_metadata
    assert metadata["variable_id"].startswith(metadata["session_id"])


def test_a_stream_is_the_same_text(chat: ChatParrot) -> None:
    pieces = [chunk.text for chunk in chat.stream("why")]
    assert len(pieces) > 3
    assert "".join(pieces) == chat.invoke("why").text


def test_one_model_in_several_event_loops_leaves_nothing_open(chat: ChatParrot) -> None:
    async def both() -> list[AIMessage]:
        text = "".join([chunk.text async for chunk in chat.astream("why")])
        reply, *more = await asyncio.gather(*(chat.ainvoke("why") for _ in range(5)))
        assert text == reply.text
        return [reply, *more]

    first, second = asyncio.run(both()), asyncio.run(both())
    assert {reply.text for reply in first} == {reply.text for reply in second}
    # What is not closed is a warning when it is collected, and warnings are errors.
    gc.collect()


def test_threads_and_loops_at_once(chat: ChatParrot) -> None:
    def in_loop(_: int) -> str:
        return str(asyncio.run(chat.ainvoke("why")).text)

    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(in_loop, range(8))) | set(
            pool.map(lambda _: str(chat.invoke("why").text), range(8))
        )
    assert len(texts) == 1
    gc.collect()


def test_a_chain_with_a_parser(chat: ChatParrot) -> None:
    chain = ChatPromptTemplate.from_template("about {topic}") | chat | StrOutputParser()
    assert "".join(chain.stream({"topic": "bees"})) == chain.invoke({"topic": "bees"})
    assert len(chain.batch([{"topic": "a"}, {"topic": "b"}])) == 2


def test_a_batch_is_one_session(url: str, chat: ChatParrot) -> None:
    llm = ParrotLLM(base_url=url, max_tokens=4)
    assert len(llm.batch([f"p{i}" for i in range(50)])) == 50
    with parrot_session(app="batch", session="b1"):
        replies = chat.batch([f"q{i}" for i in range(50)])
    assert len({reply.response_metadata["session_id"] for reply in replies}) == 1


def test_errors_are_langchain_s(chat: ChatParrot) -> None:
    with pytest.raises(ModelNotFoundError):
        chat.invoke("a", model="nobody")
    with pytest.raises(ContextOverflowError):
        chat.invoke("word " * 10_000)
    with pytest.raises(ModelTimeoutError):
        chat.invoke("a", max_tokens=1_000, ignore_eos=True, timeout=0.1)


def test_an_empty_prompt_in_a_batch_is_its_own_failure(url: str) -> None:
    llm = ParrotLLM(base_url=url, max_tokens=4)
    replies = llm.batch(["a", "", "b"], {"max_concurrency": 1}, return_exceptions=True)
    assert [isinstance(reply, P.ParrotError) for reply in replies] == [False, True, False]


LONG: dict[str, Any] = {"max_tokens": 5_000, "ignore_eos": True}


def test_a_stream_that_is_left_is_cancelled(url: str, chat: ChatParrot) -> None:
    stream = chat.stream("long", **LONG)
    next(stream)
    assert running_calls(url) == 1
    stream.close()  # type: ignore[attr-defined]
    await_idle(url)


async def test_an_awaited_stream_that_is_left_is_cancelled(url: str, chat: ChatParrot) -> None:
    async with aclosing(chat.astream("long", **LONG)) as stream:  # type: ignore[type-var]
        await anext(stream)
    await asyncio.to_thread(await_idle, url)


async def test_a_task_that_is_cancelled_cancels_its_call(url: str, chat: ChatParrot) -> None:
    task = asyncio.create_task(chat.ainvoke("long", **LONG))
    while not await asyncio.to_thread(running_calls, url):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(await_idle, url)


async def test_a_call_that_timed_out_is_cancelled(url: str, chat: ChatParrot) -> None:
    with pytest.raises(P.WaitTimeout):
        await chat.ainvoke("long", timeout=0.05, **LONG)
    await asyncio.to_thread(await_idle, url)
    with pytest.raises(P.WaitTimeout):
        [chunk async for chunk in chat.astream("long", timeout=0.05, **LONG)]
    await asyncio.to_thread(await_idle, url)


class Diary(BaseCallbackHandler):
    """Writes down the kinds of events, tokens in a row as one."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def _note(self, event: str) -> None:
        if self.events[-1:] != [event]:
            self.events.append(event)

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self._note("start")

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        self._note("token")

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self._note("end")

    def on_llm_error(self, *_: Any, **__: Any) -> None:
        self._note("error")


async def test_callbacks_come_as_from_any_other_model(chat: ChatParrot) -> None:
    reference = GenericFakeChatModel(messages=iter([AIMessage("a b c")] * 9))
    for model in (chat, reference):
        diary = Diary()
        model.invoke("a", {"callbacks": [diary]})
        list(model.stream("a", {"callbacks": [diary]}))
        await model.ainvoke("a", {"callbacks": [diary]})
        assert [chunk async for chunk in model.astream("a", {"callbacks": [diary]})]
        assert diary.events == [
            *("start", "end", "start", "token", "end"),
            *("start", "end", "start", "token", "end"),
        ]


async def test_events_of_a_stream_come_as_from_any_other_model(chat: ChatParrot) -> None:
    reference = GenericFakeChatModel(messages=iter([AIMessage("a b c")] * 9))
    kinds = []
    for model in (chat, reference):
        events = [event["event"] async for event in model.astream_events("a", version="v2")]
        kinds.append(list(dict.fromkeys(events)))
    assert kinds[0] == kinds[1]
