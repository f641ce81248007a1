"""Planned runs when something is wrong: servers, models, engines, forecasts, texts."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError, ModelNotFoundError
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.errors import ProgramError
from parrot_integrations.langchain import (
    ChatParrot,
    ParrotLLM,
    as_parrot,
    if_contains,
    repeat_until,
    traceable_step,
    watch_plans,
)
from parrot_integrations.planning.background import background
from parrot_integrations.planning.context import current_plan
from parrot_integrations.planning.symbols import Markers, Symbol
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.langchain.recording import failure

pytestmark = pytest.mark.e2e

Chain = Runnable[Any, Any]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(fail_on="FAIL", max_model_len=200)) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: ScriptedServer) -> Iterator[None]:
    server.requests.clear()
    yield
    assert current_plan.get() is None
    assert background().settle(10)
    server.wait_until_idle()
    server.wait_until_empty()


def ask(url: str, template: str, **fields: Any) -> Chain:
    chat = ChatParrot(
        base_url=url, **{"temperature": 0, "max_tokens": 6, "max_retries": 0, **fields}
    )
    return ChatPromptTemplate.from_template(template) | chat | StrOutputParser()


def outcome(chain: Chain, value: Any = "bees", config: Any = None) -> Any:
    try:
        return chain.invoke(value, config)
    except Exception as exc:  # noqa: BLE001 - errors are compared, too
        return failure(exc)


def prompt(template: str) -> Any:
    return ChatPromptTemplate.from_template(template)


def retried(chain: Chain) -> Chain:
    return chain.with_retry(
        stop_after_attempt=2,
        wait_exponential_jitter=False,
        exponential_jitter_params={"initial": 0},
    )


def or_else(chain: Chain, url: str) -> Chain:
    return chain.with_fallbacks([ask(url, "F {x}")])


LONG = "B {x} " + "long " * 300


@pytest.mark.parametrize(
    "build",
    [
        lambda url: ask(NOWHERE, "A {x}") | ask(NOWHERE, "B {x}"),
        lambda url: or_else(ask(NOWHERE, "A {x}"), url) | ask(url, "B {x}"),
        lambda url: ask(url + "/nothing", "A {x}"),
        lambda url: ask(url, "A {x}", model="no-such-model") | ask(url, "B {x}"),
        lambda url: ask(url, "A {x}") | ask(url, "B {x}", model="no-such-model"),
        lambda url: or_else(ask(url, "A {x}", model="no-such-model"), url),
        lambda url: ask(url, "A {x}") | ask(url, LONG),
        lambda url: ask(url, "A {x}") | or_else(ask(url, LONG), url),
        lambda url: ask(url, "FAIL {x}") | ask(url, "B {x}"),
        lambda url: ask(url, "A {x}") | or_else(ask(url, "FAIL {x}"), url) | ask(url, "C {x}"),
        lambda url: ask(url, "A {x}") | retried(ask(url, "FAIL {x}")),
        lambda url: (
            RunnableParallel(a=or_else(ask(url, "FAIL {x}"), url), b=ask(url, "B {x}"))
            | ask(url, "{a} {b}")
        ),
        lambda url: prompt("A {x}") | ChatParrot(base_url=url).bind(max_tokens=-1),
        lambda url: ask(url, "A {y}"),
        lambda url: ask(url, "A {x}") | prompt("B {x} {y}") | ChatParrot(base_url=url),
        lambda url: (
            (RunnableLambda(str) | ParrotLLM(base_url=url, temperature=0))
            | prompt("{x}")
            | ChatParrot(base_url=url, n=2, temperature=0, max_tokens=3)
            | StrOutputParser()
        ),
    ],
)
def test_what_goes_wrong_goes_wrong_the_same_way(
    server: ScriptedServer, build: Callable[[str], Chain]
) -> None:
    assert outcome(as_parrot(build(server.url))) == outcome(build(server.url))


def test_a_call_that_says_nothing_is_refused_wherever_it_comes_from(
    server: ScriptedServer,
) -> None:
    """Without a plan the server sees that a prompt is empty, with one only a value in it."""
    llm = ParrotLLM(base_url=server.url, temperature=0)
    chain = repeat_until(PromptTemplate.from_template("{x}") | llm, if_contains("a"), max_rounds=2)
    assert outcome(as_parrot(chain), "") == outcome(chain, "")


def test_a_plan_answers_for_its_own_server_only(server: ScriptedServer) -> None:
    with scripted_server() as other:

        def elsewhere(value: str) -> Any:
            return ask(other.url, "Q {x}").invoke(value)

        chain = RunnableLambda(elsewhere) | ask(server.url, "Q {x}") | ask(server.url, "R {x}")
        parts = RunnableParallel(a=chain, b=ask(server.url, "Q {x}"))
        as_parrot(parts).invoke("bees")
        assert other.num_submits == 1


def test_errors_are_of_langchains_tree(server: ScriptedServer) -> None:
    with pytest.raises(ModelNotFoundError):
        as_parrot(ask(server.url, "A {x}", model="none") | ask(server.url, "B {x}")).invoke("x")
    with pytest.raises(ContextOverflowError):
        as_parrot(ask(server.url, "A {x}") | ask(server.url, "{x} " + "w " * 300)).invoke("x")


@pytest.mark.parametrize("is_restarted", [True, False])
def test_a_server_that_ends_in_the_middle(is_restarted: bool) -> None:
    """The second call finds a server without the plan, or no server."""
    stacks: list[Any] = []

    def run(plan: Callable[[Chain], Chain]) -> Any:
        first = scripted_server()
        one = first.__enter__()
        port = int(one.url.rpartition(":")[2])

        def restart(value: Any) -> Any:
            first.__exit__(None, None, None)
            if is_restarted:
                second = scripted_server(port=port)
                second.__enter__()
                stacks.append(second)
            return value

        steps = (
            ask(one.url, "A {x}") | RunnableLambda(restart) | ask(one.url, "B {x}", max_retries=1)
        )
        try:
            return outcome(plan(steps))
        finally:
            while stacks:
                stacks.pop().__exit__(None, None, None)
            assert background().settle(20)

    plain = run(lambda chain: chain)
    planned = run(as_parrot)
    if is_restarted:
        assert planned == plain
        assert isinstance(plain, str)
    else:
        assert planned[0] == plain[0] == "Unreachable"


def test_a_model_that_changes_after_planning_is_asked_anew(server: ScriptedServer) -> None:
    chat = ChatParrot(base_url=server.url, temperature=0, max_tokens=6)

    def warm(value: Any) -> Any:
        chat.temperature = 0.5
        return value

    chain: Chain = (
        prompt("A {x}")
        | chat
        | StrOutputParser()
        | RunnableLambda(warm)
        | prompt("B {x}")
        | chat
        | StrOutputParser()
    )
    with watch_plans() as plans:
        planned = as_parrot(chain).invoke("x")
    report = plans[0].report()
    assert (report.num_planned, report.num_claimed, report.num_missed) == (2, 1, 1)
    chat.temperature = 0
    assert planned == chain.invoke("x")


def test_a_partial_that_depends_on_a_clock_is_run_once(server: ScriptedServer) -> None:
    ticks = itertools.count()
    prompt = ChatPromptTemplate.from_template("At {now}: {x}").partial(now=lambda: str(next(ticks)))
    chain = ask(server.url, "A {x}") | prompt | ChatParrot(base_url=server.url, temperature=0)
    with watch_plans() as plans:
        as_parrot(chain).invoke("x")
    assert next(ticks) == 1
    assert plans[0].report().num_claimed == 2


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
def test_a_text_that_cannot_be_sent(server: ScriptedServer, value: str) -> None:
    chain = ask(server.url, "A {x}") | ask(server.url, "B {x}")
    assert outcome(as_parrot(chain), value) == outcome(chain, value)
    late: Chain = RunnableLambda(lambda x: value) | ask(server.url, "B {x}")
    chain = ask(server.url, "A {x}") | late
    assert outcome(as_parrot(chain)) == outcome(chain)


def forged() -> list[str]:
    marker = str.__str__(Markers().mark(Symbol("llm-out")))
    return [
        marker,
        f"before {marker} after {marker}",
        marker.replace(":0:", ":1:"),
        "\ue000" + "0" * 39 + ":0:x:" + "0" * 39 + "\ue001",
        "{{input:llm-out}} {{output:llm-out}}",
        "\ue000\ue001" * 10,
    ]


@pytest.mark.parametrize("document", forged())
def test_a_document_cannot_pass_for_a_generated_value(
    server: ScriptedServer, document: str
) -> None:
    prompt = ChatPromptTemplate.from_template("{a} and {d}")
    chat = ChatParrot(base_url=server.url, temperature=0, max_tokens=6)
    parts = RunnableParallel(
        a=ask(server.url, "A {x}"), d=RunnableLambda(lambda x: x), e=lambda x: "e"
    )
    known = RunnableParallel(a=ask(server.url, "A {x}"), d=RunnableLambda(lambda x: x))
    for chain in (
        parts | prompt | chat | StrOutputParser(),
        known | prompt | chat | StrOutputParser(),
    ):
        assert outcome(as_parrot(chain), document) == outcome(chain, document)


def test_a_marker_of_another_plan_that_leaks_is_text(server: ScriptedServer) -> None:
    """A function that keeps what it saw while a plan was made, and hands it to the next."""
    kept: list[str] = []

    @traceable_step
    def keep(value: str) -> str:
        kept.append(f"{value}")
        return value

    url = server.url
    as_parrot(ask(url, "A {x}") | RunnableLambda(keep) | ask(url, "B {x}")).invoke("x")
    assert "\ue000" in kept[0]
    chain = ask(url, "A {x}") | ask(url, "B {x}")
    assert as_parrot(chain).invoke(kept[0]) == chain.invoke(kept[0])


class Failing(BaseCallbackHandler):
    """A handler that fails wherever it can; LangChain logs that and goes on."""

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("start")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("end")


def test_handlers_that_fail_do_not_matter(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    chain = ask(server.url, "A {x}") | ask(server.url, "B {x}")
    config: Any = {"callbacks": [Failing()]}
    assert as_parrot(chain).invoke("x", config) == chain.invoke("x", config)
    assert server.num_submits == 3


def test_strict_refuses_what_cannot_be_planned(server: ScriptedServer) -> None:
    chain = ask(server.url, "A {x}") | RunnableLambda(str.upper) | ask(server.url, "B {x}")
    with pytest.raises(ProgramError, match=r"RunnableLambda|upper") as found:
        as_parrot(chain, strict=True).invoke("x")
    assert found.value.code == "not_planned"
    with pytest.raises(ProgramError):
        list(as_parrot(chain, strict=True).stream("x"))
    assert server.requests == []


def test_a_defect_of_the_planner_leaves_the_program_alone(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from parrot_integrations.langchain.foresight import Foresight

    def broken(*_args: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Foresight, "_plan", broken)
    chain = ask(server.url, "A {x}") | ask(server.url, "B {x}")
    assert as_parrot(chain).invoke("x") == chain.invoke("x")
    assert "could not be planned" in caplog.text


@pytest.mark.parametrize("is_late", [False, True])
def test_a_large_batch_is_a_few_submits_in_order(server: ScriptedServer, is_late: bool) -> None:
    chain = ask(server.url, "A {x}", max_tokens=2)
    if is_late:
        # All of the calls wait for values that the client makes, and look alike.
        chain = RunnableLambda(str.upper) | chain
    values = [f"n{i}" for i in range(1_500)]
    found = as_parrot(chain).batch(values)
    assert server.num_submits == 2
    assert len(found) == len(set(found)) == 1_500
    some = [0, 1, 999, 1_000, 1_255, 1_499]
    assert [found[i] for i in some] == [chain.invoke(values[i]) for i in some]
