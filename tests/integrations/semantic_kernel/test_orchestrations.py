"""Planned orchestrations: round trips, what is not planned and why, and drop-in behaviour."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.agents.orchestration.group_chat import (
    BooleanResult,
    RoundRobinGroupChatManager,
)
from semantic_kernel.agents.orchestration.sequential import SequentialOrchestration
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent
from semantic_kernel.functions import KernelArguments, kernel_function
from semantic_kernel.prompt_template import PromptTemplateConfig
from semantic_kernel.utils.telemetry.agent_diagnostics import decorators

from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotConcurrentOrchestration,
    ParrotGroupChatOrchestration,
    ParrotSequentialOrchestration,
    watch_plans,
)
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

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: ScriptedServer) -> Iterator[None]:
    server.requests.clear()
    yield
    settle(server)


def three(server: ScriptedServer, **fields: Any) -> list[Any]:
    return agents(server.url, "Draft.", "Criticise.", "Improve.", **fields)


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_calls"), [(KINDS[0], 3), (KINDS[1], 3), (KINDS[2], 4)])
def test_an_orchestration_is_one_submit(server: ScriptedServer, kind: str, num_calls: int) -> None:
    plainly = execute(run(build(PLAIN, kind, three(server), Heard(), rounds=4)))
    assert server.num_submits == num_calls
    server.requests.clear()
    with watch_plans() as plans:
        planned = execute(run(build(PLANNED, kind, three(server), Heard(), rounds=4)))
    assert server.num_submits == 1
    assert server.num_sets == 0
    assert texts(planned) == texts(plainly)
    (plan,) = plans
    report = plan.report()
    assert (report.num_planned, report.num_claimed, report.num_missed) == (num_calls, num_calls, 0)
    assert not report.cuts


def test_a_plan_can_be_read_before_anything_is_sent(server: ScriptedServer) -> None:
    async def look() -> Any:
        tasks = asyncio.all_tasks()
        plan = await ParrotSequentialOrchestration(members=three(server)).plan("Tides")
        assert asyncio.all_tasks() == tasks
        return plan

    plan = execute(look())
    assert "planned 3 calls; nothing has run yet" in str(plan.report())
    assert plan.to_mermaid().count("-->") == 2
    assert "agent1: Criticise." in plan.to_mermaid()
    assert not server.requests


def test_an_orchestration_runs_twice_on_one_runtime(server: ScriptedServer) -> None:
    async def twice() -> list[Any]:
        orchestration = ParrotSequentialOrchestration(members=three(server))
        runtime = InProcessRuntime()
        runtime.start()
        first = await (await orchestration.invoke("Tides", runtime)).get(10)
        second = await (await orchestration.invoke("Tides", runtime)).get(10)
        await runtime.stop_when_idle()
        return [first, second]

    first, second = execute(twice())
    assert texts(first) == texts(second)
    assert server.num_submits == 2


@pytest.mark.parametrize("kind", KINDS)
def test_invocations_at_once_have_a_plan_each(server: ScriptedServer, kind: str) -> None:
    tasks = [f"Write about {i}." for i in range(6)]

    async def at_once(classes: dict[str, Any]) -> list[Any]:
        shared = build(classes, kind, three(server), Heard(), rounds=2)
        runtime = InProcessRuntime()
        runtime.start()
        each = [
            # A manager of the framework remembers its round; each chat has one of its own.
            build(classes, kind, three(server), Heard(), rounds=2)
            if kind == "group chat"
            else shared
            for _ in tasks
        ]
        results = [await one.invoke(task, runtime) for one, task in zip(each, tasks, strict=True)]
        found = [texts(await result.get(10)) for result in results]
        await runtime.stop_when_idle()
        return found

    plainly = execute(at_once(PLAIN))
    server.requests.clear()
    assert execute(at_once(PLANNED)) == plainly
    assert server.num_submits == len(tasks)


# --- what is not planned --------------------------------------------------------------------------


class Own(ChatCompletionAgent):
    """An agent with a way of its own."""

    async def invoke_stream(self, *args: Any, **kwargs: Any) -> AsyncIterable[Any]:
        async for item in super().invoke_stream(*args, **kwargs):
            yield item


class OwnManager(RoundRobinGroupChatManager):
    """A manager that might do anything."""


class OwnService(ParrotChatCompletion):
    """A service that might do anything."""

    async def get_streaming_chat_message_contents(self, *args: Any, **kwargs: Any) -> Any:
        async for messages in super().get_streaming_chat_message_contents(*args, **kwargs):
            yield messages


class OwnOrchestration(ParrotSequentialOrchestration):
    """An orchestration that says itself how it begins."""

    has_begun = False

    async def _start(self, *args: Any, **kwargs: Any) -> None:
        self.has_begun = True
        await super()._start(*args, **kwargs)


class Asking(RoundRobinGroupChatManager):
    """A manager that lets a human speak first."""

    async def should_request_user_input(self, chat_history: ChatHistory) -> BooleanResult:
        return BooleanResult(result=len(chat_history) == 1, reason="at first")


class Clock:
    """Functions that an agent may call."""

    @kernel_function(name="now", description="The time.")
    def now(self) -> str:
        return "noon"


def with_own_agent(server: ScriptedServer) -> Any:
    own = Own(name="own", instructions="Improve.", service=ParrotChatCompletion(host=server.url))
    return ParrotSequentialOrchestration(members=[*three(server), own])


def with_own_service(server: ScriptedServer) -> Any:
    service: Any = OwnService
    own = ChatCompletionAgent(name="own", service=service(host=server.url))
    return ParrotSequentialOrchestration(members=[*three(server), own])


def with_tools(server: ScriptedServer) -> Any:
    return ParrotSequentialOrchestration(members=three(server, plugins=[Clock()]))


def with_other_server(server: ScriptedServer) -> Any:
    here = agents(server.url, "Draft.")
    (there,) = agents(server.url.replace("127.0.0.1", "localhost"), "Improve.")
    there.name = "there"
    return ParrotSequentialOrchestration(members=[*here, there])


def with_two_sessions(server: ScriptedServer) -> Any:
    service = ParrotChatCompletion(host=server.url)
    members: list[Any] = [
        ChatCompletionAgent(name=f"a{i}", service=service.with_session(session=str(i)))
        for i in range(2)
    ]
    return ParrotConcurrentOrchestration(members=members)


def group(server: ScriptedServer, manager: Any) -> Any:
    return ParrotGroupChatOrchestration(members=three(server), manager=manager)


def with_a_human(server: ScriptedServer) -> Any:
    def human(history: ChatHistory) -> ChatMessageContent:
        return ChatMessageContent(role=AuthorRole.USER, content=f"After {len(history)}.")

    return group(server, RoundRobinGroupChatManager(max_rounds=2, human_response_function=human))


UNPLANNED: list[tuple[Any, str]] = [
    (with_own_agent, "own is a Own, not just a ChatCompletionAgent"),
    (with_own_service, "its service's class says itself what it does"),
    (with_tools, "its model may ask for tools"),
    (with_other_server, "its model is on another server than those before"),
    (with_two_sessions, "its calls belong to another session than those before"),
    (lambda s: group(s, OwnManager(max_rounds=2)), "its manager is a OwnManager"),
    (lambda s: group(s, Asking(max_rounds=2)), "its manager is a Asking"),
    (with_a_human, "its manager may ask a human"),
    (lambda s: OwnOrchestration(members=three(s)), "OwnOrchestration has a _start of its own"),
    (
        lambda s: ParrotSequentialOrchestration(members=agents(s.url, "Draft.")),
        "one call gains nothing by a plan",
    ),
]


@pytest.mark.parametrize(("make", "why"), UNPLANNED)
def test_what_cannot_be_foreseen_runs_as_it_is(
    server: ScriptedServer, make: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with watch_plans() as plans:
        found = texts(execute(run(make(server))))
    assert server.num_submits > 0
    (plan,) = plans
    assert [note.why for note in plan.report().cuts] == [why]
    assert plan.report().num_planned == 0
    assert not caplog.records
    # The framework's own class under ours, with the members as they are.
    for cls in type(make(server)).__mro__:
        if cls.__module__.startswith("semantic_kernel") and "Base" not in cls.__name__:
            plain = make(server)
            plain.__class__ = cls
            assert texts(execute(run(plain))) == found
            return
    raise AssertionError("no class of the framework")


def test_an_orchestration_of_the_users_own_is_left_alone(server: ScriptedServer) -> None:
    orchestration = OwnOrchestration(members=three(server))
    execute(run(orchestration))
    assert orchestration.has_begun


def test_a_chat_without_a_last_round_is_not_traced(server: ScriptedServer) -> None:
    chat = group(server, RoundRobinGroupChatManager())
    (note,) = execute(chat.plan("Tides")).report().cuts
    assert note.why == "its manager has no max_rounds"


def test_a_very_long_chat_is_not_traced(server: ScriptedServer) -> None:
    chat = group(server, RoundRobinGroupChatManager(max_rounds=51))
    (note,) = execute(chat.plan("Tides")).report().cuts
    assert note.why == "it has more than 50 rounds"


def test_members_of_the_same_name_fail_as_ever(server: ScriptedServer) -> None:
    members = [*agents(server.url, "Draft."), *agents(server.url, "Improve.")]
    with pytest.raises(ValueError, match="already exists"):
        execute(run(SequentialOrchestration(members=members)))
    with pytest.raises(ValueError, match="already exists"):
        execute(run(ParrotSequentialOrchestration(members=members)))
    assert not server.requests


# --- drop-in --------------------------------------------------------------------------------------


@dataclass
class Order:
    topic: str
    tone: str


class Typed(ParrotSequentialOrchestration[Order, str]):
    """With types of its own."""


GIVEN_TYPES: Any = ParrotSequentialOrchestration[Order, str]


@pytest.mark.parametrize("make", [GIVEN_TYPES, Typed])
def test_types_and_transforms_are_the_users(server: ScriptedServer, make: Any) -> None:
    seen: list[Any] = []

    async def to_message(order: Order) -> ChatMessageContent:
        seen.append(order)
        return ChatMessageContent(role=AuthorRole.USER, content=f"{order.tone}: {order.topic}")

    def to_text(message: Any) -> str:
        return f"<{message.content}>"

    order = Order("tides", "dry")
    found = execute(
        run(make(three(server), input_transform=to_message, output_transform=to_text), order)
    )
    assert seen == [order]
    assert server.num_submits == 1
    plain: Any = SequentialOrchestration(three(server))
    (text,) = texts(execute(run(plain, "dry: tides")))
    assert found == f"<{text[2]}>"


def test_a_task_of_the_users_type_becomes_json(server: ScriptedServer) -> None:
    plain = SequentialOrchestration[Order, ChatMessageContent](three(server))
    plainly = execute(run(plain, Order("tides", "dry")))
    server.requests.clear()
    planned = ParrotSequentialOrchestration[Order, ChatMessageContent](three(server))
    assert texts(execute(run(planned, Order("tides", "dry")))) == texts(plainly)
    assert server.num_submits == 1


def test_a_wrong_task_fails_as_ever(server: ScriptedServer) -> None:
    for orchestration in (
        SequentialOrchestration[Order, str](three(server)),
        ParrotSequentialOrchestration[Order, str](three(server)),
    ):
        with pytest.raises(TypeError, match="Invalid input message type"):
            execute(run(orchestration, 7))


def test_nothing_of_the_users_is_changed_by_a_plan(server: ScriptedServer) -> None:
    settings = ParrotChatPromptExecutionSettings(temperature=0.5)
    members = three(server, arguments=KernelArguments(settings=settings))
    before = [member.model_dump_json(exclude={"kernel", "arguments"}) for member in members]
    manager = RoundRobinGroupChatManager(max_rounds=4)
    task = [ChatMessageContent(role=AuthorRole.USER, content="Tides")]
    chat = ParrotGroupChatOrchestration(members=members, manager=manager)
    assert execute(chat.plan(task)).report().num_planned == 4
    assert settings.function_choice_behavior is None
    assert settings == ParrotChatPromptExecutionSettings(temperature=0.5)
    assert (manager.current_round, manager.current_index) == (0, 0)
    assert [member.prompt_template for member in members] == [None] * 3
    assert [m.model_dump_json(exclude={"kernel", "arguments"}) for m in members] == before
    assert len(task) == 1


@pytest.mark.parametrize("form", ["semantic-kernel", "handlebars", "jinja2"])
def test_instructions_with_arguments_are_planned(server: ScriptedServer, form: Any) -> None:
    variable = {"semantic-kernel": "{{$what}}"}.get(form, "{{what}}")

    def members() -> list[Any]:
        return [
            ChatCompletionAgent(
                name=f"a{i}",
                service=ParrotChatCompletion(host=server.url),
                prompt_template_config=PromptTemplateConfig(
                    template=f"{i}: {variable}", template_format=form
                ),
                arguments=KernelArguments(what="<b> & 'so'"),
            )
            for i in range(2)
        ]

    plainly = execute(run(SequentialOrchestration(members=members())))
    server.requests.clear()
    planned = execute(run(ParrotSequentialOrchestration(members=members())))
    assert texts(planned) == texts(plainly)
    assert server.num_submits == 1


def test_a_plan_leaves_no_spans(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(decorators, "tracer", provider.get_tracer("test"))
    monkeypatch.setattr(decorators.MODEL_DIAGNOSTICS_SETTINGS, "enable_otel_diagnostics", True)
    orchestration = ParrotSequentialOrchestration(members=three(server))
    execute(orchestration.plan("Tides"))
    assert not exporter.get_finished_spans()
    execute(run(orchestration))
    assert len(exporter.get_finished_spans()) == 3


def test_the_package_works_without_protobuf() -> None:
    code = """
import sys, json
sys.modules["google.protobuf"] = None
import parrot_integrations.semantic_kernel as sk
try:
    sk.ParrotSequentialOrchestration
except ImportError as exc:
    print(json.dumps([hasattr(sk, "ParrotChatCompletion"), str(exc)]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    has_connector, message = json.loads(done.stdout)
    assert has_connector
    assert "protobuf" in message
