"""Planned runs: round trips, batches without barriers, and giving up half-way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableLambda,
    RunnableParallel,
)

import parrot_integrations as P
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.errors import WaitTimeout
from parrot_integrations.langchain import (
    ChatParrot,
    as_parrot,
    join_list,
    parrot_session,
    watch_plans,
)
from parrot_integrations.planning.background import background
from parrot_integrations.planning.context import current_plan
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e

Chain = Runnable[Any, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(scope="module")
def slow() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(token_s=0.02)) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: ScriptedServer, slow: ScriptedServer) -> Iterator[None]:
    """After each test: nothing runs, no session is open, no plan is in force, nobody listens."""
    server.requests.clear()
    slow.requests.clear()
    yield
    assert current_plan.get() is None
    assert background().settle(10)
    for one in (server, slow):
        one.wait_until_idle()
        one.wait_until_empty()
    for thread in threading.enumerate():
        if thread.name in ("parrot-reader", "parrot-submit"):
            thread.join(5)
            assert not thread.is_alive()


def ask(server: ScriptedServer, template: str, **fields: Any) -> Chain:
    chat = ChatParrot(base_url=server.url, temperature=0, **{"max_tokens": 6, **fields})
    return ChatPromptTemplate.from_template(template) | chat | StrOutputParser()


# --- round trips ---------------------------------------------------------------------------------


def test_two_steps_are_one_submit(server: ScriptedServer) -> None:
    chain = as_parrot(ask(server, "Outline {x}") | ask(server, "Expand {x}"))
    assert chain.invoke("bees")
    assert (server.num_submits, server.num_sets) == (1, 0)


def test_map_reduce_of_six_is_one_submit(server: ScriptedServer) -> None:
    summaries = {f"s{i}": itemgetter(f"d{i}") | ask(server, "Sum {x}") for i in range(6)}
    template = " ".join(f"{{s{i}}}" for i in range(6))
    chain = as_parrot(RunnableParallel(summaries) | ask(server, template))
    assert chain.invoke({f"d{i}": f"document {i}" for i in range(6)})
    assert (server.num_submits, server.num_sets) == (1, 0)


def test_four_stages_are_one_submit(server: ScriptedServer) -> None:
    chain = ask(server, "One {x}")
    for stage in ("Two", "Three", "Four"):
        chain = chain | ask(server, stage + " {x}")
    assert as_parrot(chain).invoke("bees")
    assert (server.num_submits, server.num_sets) == (1, 0)


@pytest.mark.parametrize(("join", "num_sets"), [(join_list(), 0), (RunnableLambda("; ".join), 1)])
def test_map_join_reduce_is_one_submit(server: ScriptedServer, join: Chain, num_sets: int) -> None:
    chain = as_parrot(ask(server, "Sum {x}").map() | join | ask(server, "All {x}"))
    assert chain.invoke(["a", "b", "c", "d"])
    assert (server.num_submits, server.num_sets) == (1, num_sets)


def test_a_batch_is_one_submit(server: ScriptedServer) -> None:
    chain = as_parrot(ask(server, "A {x}") | ask(server, "B {x}"))
    plain = [chain.bound.invoke(x) for x in "abcd"]
    server.requests.clear()
    assert chain.batch(list("abcd")) == plain
    assert server.num_submits == 1


def test_a_batch_has_no_barrier_between_steps(slow: ScriptedServer) -> None:
    model = ChatParrot(base_url=slow.url, temperature=0, ignore_eos=True)
    sized = model.configurable_fields(max_tokens=ConfigurableField("size"))
    prompt: Any = ChatPromptTemplate.from_template
    steps: Chain = (
        prompt("A {x}") | sized | StrOutputParser() | prompt("B {x}") | model.bind(max_tokens=2)
    )
    ended: dict[int, float] = {}

    class Ended(BaseCallbackHandler):
        def __init__(self, index: int) -> None:
            self.index = index

        def on_chain_end(self, outputs: Any, **about: Any) -> None:
            ended[self.index] = time.monotonic() - begun

    configs: Any = [
        {"configurable": {"size": size}, "callbacks": [Ended(index)]}
        for index, size in enumerate((60, 2, 2))
    ]
    begun = time.monotonic()
    as_parrot(steps).batch(["long", "b", "c"], configs)
    # Sixty tokens take 1.2 s; with a barrier after the first step nobody would be done before.
    assert ended[0] > 1.2 > max(ended[1], ended[2])
    assert slow.num_submits == 1


# --- giving up -----------------------------------------------------------------------------------


def long_chain(server: ScriptedServer) -> Chain:
    return ask(server, "A {x}", max_tokens=30, ignore_eos=True) | ask(
        server, "B {x}", max_tokens=200, ignore_eos=True
    )


def test_a_stream_that_nobody_begins_sends_nothing(server: ScriptedServer) -> None:
    as_parrot(ask(server, "A {x}")).stream("x")
    as_parrot(ask(server, "A {x}")).batch_as_completed(["x", "y"])
    assert server.requests == []


def test_a_stream_closed_early_is_given_up(slow: ScriptedServer) -> None:
    stream = as_parrot(long_chain(slow)).stream("x")
    assert next(stream)
    assert current_plan.get() is None
    assert slow.service.coordinator.num_unfinished_calls == 1
    stream.close()  # type: ignore[attr-defined]


async def test_an_awaited_stream_closed_early_is_given_up(slow: ScriptedServer) -> None:
    stream = as_parrot(long_chain(slow)).astream("x")
    assert await anext(stream)
    assert current_plan.get() is None
    await stream.aclose()  # type: ignore[attr-defined]


async def test_events_closed_early_are_given_up(slow: ScriptedServer) -> None:
    events = as_parrot(long_chain(slow)).astream_events("x", version="v2")
    async for event in events:
        if event["event"] == "on_chat_model_stream":
            break
    assert current_plan.get() is None
    await events.aclose()


async def test_a_cancelled_task_is_given_up(slow: ScriptedServer) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(as_parrot(long_chain(slow)).ainvoke("x"), 0.3)


class Interrupt(BaseException):
    pass


class Strict(BaseCallbackHandler):
    """A handler whose errors count."""

    raise_error = True
    run_inline = True

    def on_chain_start(self, serialized: Any, inputs: Any, **about: Any) -> None:
        if about.get("name") == "here":
            raise ValueError("the handler fails")


@pytest.mark.parametrize("error", [ValueError, Interrupt, KeyboardInterrupt])
@pytest.mark.parametrize("entry", ["invoke", "stream", "ainvoke", "batch"])
def test_an_error_in_the_middle_gives_up_the_rest(
    slow: ScriptedServer, error: type[BaseException], entry: str
) -> None:
    if error is not ValueError and entry in ("ainvoke", "batch"):
        pytest.skip("event loops and pools have their own ways with these")

    def fail(value: Any) -> Any:
        raise error("in the middle")

    other = ask(slow, "C {x}", max_tokens=500, ignore_eos=True)
    chain = as_parrot(
        ask(slow, "A {x}") | RunnableLambda(fail) | ask(slow, "B {x}") | RunnableLambda(str) | other
    )
    entries: dict[str, Any] = {
        "invoke": lambda: chain.invoke("x"),
        "stream": lambda: list(chain.stream("x")),
        "ainvoke": lambda: asyncio.run(chain.ainvoke("x")),
        "batch": lambda: chain.batch(["x", "y"]),
    }
    with pytest.raises(error):
        entries[entry]()
    assert current_plan.get() is None


def test_a_handler_that_raises_gives_up_the_rest(slow: ScriptedServer) -> None:
    def same(value: Any) -> Any:
        return value

    first = ask(slow, "A {x}", max_tokens=4)
    step = RunnableLambda(same, name="here")
    last = ask(slow, "B {x}", max_tokens=400, ignore_eos=True)
    with pytest.raises(ValueError, match="the handler fails"):
        as_parrot(first | step | last).invoke("x", {"callbacks": [Strict()]})


def test_a_planned_call_that_is_not_needed_is_given_up(slow: ScriptedServer) -> None:
    """The primary fails after its first step, while the planned second one runs on."""

    def fail(value: Any) -> Any:
        raise ValueError("no")

    unneeded = ask(slow, "U {x}", max_tokens=2_000, ignore_eos=True)
    primary = RunnableLambda(fail) | unneeded
    chain = primary.with_fallbacks([ask(slow, "F {x}", max_tokens=2)])
    begun = time.monotonic()
    with watch_plans() as plans:
        as_parrot(RunnableParallel(f=chain, g=ask(slow, "G {x}", max_tokens=2))).invoke("x")
    assert time.monotonic() - begun < 5
    assert plans[0].report().num_wasted == 1


def test_a_timeout_of_the_model_holds_for_planned_calls(slow: ScriptedServer) -> None:
    chain = ask(slow, "A {x}", timeout=0.2, max_tokens=500, ignore_eos=True)
    for entered in (chain, as_parrot(chain)):
        begun = time.monotonic()
        with pytest.raises(WaitTimeout, match=r"no reply within 0\.2 s; the call was given up"):
            entered.invoke("x")
        assert time.monotonic() - begun < 5


def test_the_annotation_of_a_scope_reaches_the_session(server: ScriptedServer) -> None:
    seen: list[Any] = []
    sessions = server.service.coordinator.sessions

    def look(value: Any) -> Any:
        seen.extend(
            (s.app, dict(s.metadata), [getattr(n, "stage", None) for n in s.graph.nodes.values()])
            for s in sessions
            if not s.is_closed
        )
        return value

    last = ask(server, "B {x}").with_config(metadata={"parrot_stage": "final"})
    chain = as_parrot(ask(server, "A {x}") | RunnableLambda(look) | last)
    with parrot_session(app="reports", session="u1", stage="draft"):
        chain.invoke("x", {"metadata": {"colour": "red"}})
    assert seen == [("reports", {"session": "u1", "colour": "red"}, ["draft", "final"])]


def test_models_with_a_client_of_their_own_are_planned(server: ScriptedServer) -> None:
    with P.ParrotClient(server.url) as client:
        llm = ChatParrot(client=client, temperature=0, max_tokens=4)
        one: Chain = ChatPromptTemplate.from_template("One {x}") | llm | StrOutputParser()
        chain = one | ChatPromptTemplate.from_template("Two {y}") | llm | StrOutputParser()
        with watch_plans() as plans:
            assert as_parrot(chain).invoke({"x": "a"}) == chain.invoke({"x": "a"})
        assert background().settle(5)
    assert plans[0].report().num_claimed == 2
