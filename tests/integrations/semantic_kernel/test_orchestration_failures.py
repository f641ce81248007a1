"""Planned orchestrations that end early, fail or come apart: right answers, and nothing left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import stamina
from semantic_kernel.agents.orchestration.orchestration_base import OrchestrationResult
from semantic_kernel.agents.orchestration.sequential import SequentialOrchestration
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.exceptions import ServiceException

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.semantic_kernel import (
    ParrotConcurrentOrchestration,
    ParrotSequentialOrchestration,
    orchestration_runs,
    watch_plans,
)
from parrot_integrations.semantic_kernel.errors import CallFailed
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.orchestra import (
    KINDS,
    PLAIN,
    PLANNED,
    Heard,
    agents,
    build,
    execute,
    run,
    settle,
    texts,
)

pytestmark = pytest.mark.e2e

#: The engine fails on a prompt with this.
FAILING = "explode"


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(fail_on=FAILING)) as server:
        yield server


@pytest.fixture(scope="module")
def slow() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(token_s=0.01)) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: ScriptedServer, slow: ScriptedServer) -> Iterator[None]:
    server.requests.clear()
    slow.requests.clear()
    yield
    settle(server)
    settle(slow)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_agent_fails_as_without_a_plan(server: ScriptedServer, kind: str, position: int) -> None:
    instructions = ["Draft.", "Criticise.", "Improve."]
    instructions[position] = FAILING

    def outcome(classes: dict[str, Any]) -> tuple[str, str, dict[str, list[str]]]:
        heard = Heard()
        members = agents(server.url, *instructions)
        with pytest.raises(CallFailed, match="a scripted failure") as caught:
            execute(run(build(classes, kind, members, heard, rounds=3)))
        # Whether agents at the same time get to an end is a matter of luck.
        answers = {} if kind == "concurrent" else dict(heard.answers)
        return type(caught.value).__name__, caught.value.code, answers

    assert outcome(PLANNED) == outcome(PLAIN)


def test_other_agents_go_on_when_one_fails(slow: ScriptedServer) -> None:
    """As in the framework, whose callbacks hear of them."""
    heard = Heard()

    def complain(message: Any) -> None:
        if message.name == "agent0":
            raise RuntimeError("no more")
        heard.answers[message.name].append(message.content)

    members = agents(slow.url, "Draft.", "Criticise.", "Improve.")
    orchestration = ParrotConcurrentOrchestration(members=members, agent_response_callback=complain)
    with watch_plans() as plans, pytest.raises(RuntimeError, match="no more"):
        execute(run(orchestration))
    assert {name: len(found) for name, found in heard.answers.items()} == {"agent1": 1, "agent2": 1}
    assert plans[0].report().num_claimed == 3
    assert slow.num_submits == 1


def test_a_callback_that_fails_ends_the_plan(slow: ScriptedServer) -> None:
    def complain(_message: Any, _is_final: bool) -> None:
        raise RuntimeError("no more")

    orchestration = ParrotSequentialOrchestration(
        members=agents(slow.url, "Draft.", "Criticise.", "Improve."),
        streaming_agent_response_callback=complain,
    )

    async def keep_the_error() -> None:
        runtime = InProcessRuntime()
        runtime.start()
        result = await orchestration.invoke("Tides", runtime)
        with pytest.raises(RuntimeError, match="no more"):
            await result.get(10)
        await asyncio.to_thread(settle, slow)
        assert result.exception is not None
        await runtime.stop_when_idle()

    execute(keep_the_error())


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_down(kind: str) -> None:
    def outcome(classes: dict[str, Any]) -> str:
        members = agents("http://127.0.0.1:9", "Draft.", "Criticise.")
        with (
            stamina.set_testing(True, attempts=2, cap=True),
            pytest.raises(
                ServiceException, match=r"no connection to http://127\.0\.0\.1:9"
            ) as caught,
        ):
            execute(run(build(classes, kind, members, Heard(), rounds=3)))
        return type(caught.value).__name__

    assert outcome(PLANNED) == outcome(PLAIN)


# --- early ends -----------------------------------------------------------------------------------


async def _until(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_orchestration_lets_the_agent_finish(slow: ScriptedServer, kind: str) -> None:
    heard, begun, finished = Heard(), asyncio.Event(), asyncio.Event()
    num_begun = 3 if kind == "concurrent" else 1

    def piece(message: Any, is_final: bool) -> None:
        heard.piece(message, is_final)
        begun.set()
        if sum(map(len, heard.streams.values())) == num_begun:
            finished.set()

    async def cancel() -> None:
        orchestration = PLANNED[kind](**_parts(kind, slow, piece))
        runtime = InProcessRuntime()
        runtime.start()
        result = await orchestration.invoke("Tides", runtime)
        await _until(begun)
        result.cancel()
        with pytest.raises(RuntimeError, match="canceled"):
            await result.get(10)
        await _until(finished)
        await runtime.stop_when_idle()

    with watch_plans() as plans:
        execute(cancel())
    assert slow.num_submits == 1
    report = plans[0].report()
    assert (report.num_claimed, report.num_missed, report.num_lost) == (num_begun, 0, 0)


def test_a_callback_may_cancel(slow: ScriptedServer) -> None:
    """The agent that speaks is heard to its end, and no other."""
    heard, finished = Heard(), asyncio.Event()
    results: list[OrchestrationResult[Any]] = []

    def cancel(message: Any, is_final: bool) -> None:
        heard.piece(message, is_final)
        if not results[0].cancellation_token.is_cancelled():
            results[0].cancel()
        if is_final:
            finished.set()

    async def begin() -> None:
        orchestration = ParrotSequentialOrchestration(**_parts("sequential", slow, cancel))
        runtime = InProcessRuntime()
        runtime.start()
        results.append(await orchestration.invoke("Tides", runtime))
        await _until(finished)
        await runtime.stop_when_idle()

    with watch_plans() as plans:
        execute(begin())
    assert {name: len(found) for name, found in heard.streams.items()} == {"agent0": 1}
    report = plans[0].report()
    assert (report.num_claimed, report.num_lost, report.num_missed) == (1, 0, 0)


def test_a_runtime_that_is_forgotten(slow: ScriptedServer) -> None:
    """Its plan is, too, before anybody loses patience."""
    begun, answered = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        orchestration = ParrotSequentialOrchestration(
            **_parts("sequential", slow, lambda *_: begun.set()),
            agent_response_callback=lambda _message: answered.set(),
        )
        runtime = InProcessRuntime()
        runtime.start()
        await orchestration.invoke("Tides", runtime)
        await _until(begun)
        await runtime.stop()
        await _until(answered)

    execute(stop())
    # What is dropped has finalizers of its own.
    for _ in range(3):
        gc.collect()


def _parts(kind: str, server: ScriptedServer, piece: Any) -> dict[str, Any]:
    built = build(
        PLAIN, kind, agents(server.url, "Draft.", "Criticise.", "Improve."), Heard(), rounds=3
    )
    parts: dict[str, Any] = {
        "members": built._members,
        "streaming_agent_response_callback": piece,
    }
    if kind == "group chat":
        parts["manager"] = built._manager
    return parts


def test_nothing_is_sent_before_the_runtime_starts(server: ScriptedServer) -> None:
    async def only_invoke() -> None:
        members = agents(server.url, "Draft.", "Criticise.")
        orchestration = ParrotSequentialOrchestration(members=members)
        runtime = InProcessRuntime()
        result = await orchestration.invoke("Tides", runtime)
        assert result.background_task is not None
        result.background_task.cancel()

    execute(only_invoke())
    assert not server.requests


def test_a_program_that_ends_without_waiting(slow: ScriptedServer) -> None:
    begun = asyncio.Event()

    async def leave() -> None:
        parts = _parts("sequential", slow, lambda *_: begun.set())
        runtime = InProcessRuntime()
        runtime.start()
        await ParrotSequentialOrchestration(**parts).invoke("Tides", runtime)
        await _until(begun)

    execute(leave())


def test_a_runtime_that_is_stopped(slow: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration_runs, "PATIENCE_S", 0.0)
    heard, begun, answered = Heard(), asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        parts = _parts("sequential", slow, lambda *_: begun.set())

        def answer(_message: Any) -> None:
            answered.set()

        orchestration = ParrotSequentialOrchestration(**parts, agent_response_callback=answer)
        runtime = InProcessRuntime()
        runtime.start()
        await orchestration.invoke("Tides", runtime)
        await _until(begun)
        await runtime.stop()
        await _until(answered)
        await asyncio.to_thread(settle, slow)

    with watch_plans() as plans:
        execute(stop())
    assert not heard.answers
    assert plans[0].report().num_claimed == 1


def test_patience_is_for_pauses_only(slow: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is given up too soon costs work, and no answer."""
    monkeypatch.setattr(orchestration_runs, "PATIENCE_S", 0.0)

    async def pause(_message: Any) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def members() -> list[Any]:
        return agents(slow.url, "Draft.", "Criticise.", "Improve.")

    plainly = execute(run(SequentialOrchestration(members=members())))
    with watch_plans() as plans:
        planned = execute(
            run(ParrotSequentialOrchestration(members=members(), agent_response_callback=pause))
        )
    assert texts(planned) == texts(plainly)
    report = plans[0].report()
    assert report.num_claimed + report.num_missed == 3
    assert report.num_missed > 0


# --- plans that come apart ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sequential", "group chat"])
def test_a_callback_that_changes_messages(slow: ScriptedServer, kind: str) -> None:
    def outcome(classes: dict[str, Any]) -> Any:
        def shout(message: Any) -> None:
            message.items[-1].text = message.items[-1].text.upper()

        orchestration = build(
            classes, kind, agents(slow.url, "Draft.", "Criticise.", "Improve."), Heard(), rounds=4
        )
        orchestration._agent_response_callback = shout
        return texts(execute(run(orchestration)))

    plainly = outcome(PLAIN)
    slow.requests.clear()
    with watch_plans() as plans:
        assert outcome(PLANNED) == plainly
    report = plans[0].report()
    assert report.num_claimed == 1
    assert report.num_missed == report.num_planned - 1
    assert report.num_submits == 1
