"""What the server is told of agents: sessions and stages, planned and not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.agents.orchestration.handoffs import (
    HandoffOrchestration,
    OrchestrationHandoffs,
)
from semantic_kernel.agents.orchestration.magentic import (
    MagenticOrchestration,
    StandardMagenticManager,
)
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import kernel_function
from semantic_kernel.kernel import Kernel
from semantic_kernel.processes.kernel_process import (
    KernelProcessEvent,
    KernelProcessStep,
    KernelProcessStepContext,
)
from semantic_kernel.processes.local_runtime.local_kernel_process import start
from semantic_kernel.processes.process_builder import ProcessBuilder

from parrot_backend.core.bodies import calls_of
from parrot_backend.core.session_book import SessionBook
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotConcurrentOrchestration,
    ParrotPlanFilter,
    ParrotSequentialOrchestration,
    parrot_session,
)
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.orchestra import agents, execute, run, settle

pytestmark = pytest.mark.e2e

#: What the server knows of a session: the application and labels, with the stages of its calls.
Told = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def told(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Told]]:
    """What the server is told with each new session, in order."""
    told: list[Told] = []
    accept = SessionBook.accept

    def listen(self: SessionBook, session: Any, submission: Any) -> None:
        stages = {call.stage for call in calls_of(submission.nodes) if call.stage is not None}
        stage = {"stage": ", ".join(sorted(stages))} if stages else {}
        told.append((session.app, {**dict(session.metadata), **stage}))
        accept(self, session, submission)

    monkeypatch.setattr(SessionBook, "accept", listen)
    yield told
    settle(server)


def members_of(service: ParrotChatCompletion, number: int) -> list[Any]:
    return [
        ChatCompletionAgent(
            name=f"agent{i}",
            description=f"Agent {i}",
            instructions=f"You are {i}.",
            service=service,
        )
        for i in range(number)
    ]


# --- planned --------------------------------------------------------------------------------------


def test_a_plan_says_which_orchestration_it_is(server: ScriptedServer, told: list[Told]) -> None:
    members = agents(server.url, "Draft.", "Improve.")
    execute(run(ParrotSequentialOrchestration(members=members, name="report")))
    labels = {"session": "report", "stage": "agent0, agent1", "orchestration": "report"}
    assert told == [("report", labels)]


def test_an_orchestration_without_a_name(server: ScriptedServer, told: list[Told]) -> None:
    orchestration = ParrotConcurrentOrchestration(members=agents(server.url, "Draft.", "Improve."))
    execute(run(orchestration))
    ((app, labels),) = told
    assert app == labels["orchestration"] == "ParrotConcurrentOrchestration"
    assert labels["session"] == orchestration.name


def test_what_the_caller_says_comes_first(server: ScriptedServer, told: list[Told]) -> None:
    orchestration = ParrotSequentialOrchestration(
        members=agents(server.url, "Draft.", "Improve."), name="report"
    )

    async def call() -> None:
        with parrot_session(app="news", session="visit-7", metadata={"user": 3}):
            await run(orchestration)

    execute(call())
    stage = "agent0, agent1"
    labels = {"session": "visit-7", "stage": stage, "orchestration": "report", "user": 3}
    assert told == [("news", labels)]


def test_what_the_service_says_comes_before_the_orchestration(
    server: ScriptedServer, told: list[Told]
) -> None:
    service = ParrotChatCompletion(host=server.url, app="news").with_session(session="visit-7")
    members = members_of(service, 2)
    execute(run(ParrotSequentialOrchestration(members=members, name="report")))
    stage = "agent0, agent1"
    assert told == [("news", {"session": "visit-7", "stage": stage, "orchestration": "report"})]


# --- not planned ----------------------------------------------------------------------------------


class Other(ChatCompletionAgent):
    """An agent that is not planned."""


def test_agents_that_are_not_planned_are_stages(server: ScriptedServer, told: list[Told]) -> None:
    # Without instructions, nothing but the orchestration knows which agent asks.
    members: list[Any] = [
        Other(name=name, service=ParrotChatCompletion(host=server.url))
        for name in ("writer", "critic")
    ]
    execute(run(ParrotSequentialOrchestration(members=members, name="report")))
    labels = {"session": "report", "orchestration": "report"}
    assert told == [("", {**labels, "stage": "writer"}), ("", {**labels, "stage": "critic"})]


@pytest.mark.parametrize("session", ["visit-7", None])
def test_a_handoff(server: ScriptedServer, told: list[Told], session: str | None) -> None:
    """The framework's own: the session is bound to the service, an agent's name is the stage."""
    service = ParrotChatCompletion(host=server.url).with_session(session=session)
    first, second = members_of(service, 2)
    handoffs = OrchestrationHandoffs().add(first, second, "Transfer.")
    orchestration = HandoffOrchestration(members=[first, second], handoffs=handoffs)
    execute(run(orchestration, "Please Handoff-transfer_to_agent1( now."))
    labels = {} if session is None else {"session": session}
    assert told == [("", {**labels, "stage": "agent0"}), ("", {**labels, "stage": "agent1"})]


def test_what_actors_see_is_the_block_in_which_their_runtime_starts(
    server: ScriptedServer, told: list[Told]
) -> None:
    first, second = members_of(ParrotChatCompletion(host=server.url), 2)
    handoffs = OrchestrationHandoffs().add(first, second, "Transfer.")
    orchestration = HandoffOrchestration(members=[first, second], handoffs=handoffs)

    async def program() -> None:
        runtime = InProcessRuntime()
        with parrot_session(session="start"):
            runtime.start()
        with parrot_session(session="invoke"):
            await (await orchestration.invoke("Hello.", runtime)).get(timeout=30)
        await runtime.stop_when_idle()

    execute(program())
    assert told == [("", {"session": "start", "stage": "agent0"})]


def test_magentic(server: ScriptedServer, told: list[Told]) -> None:
    service = ParrotChatCompletion(host=server.url).with_session(session="visit-7")
    manager = StandardMagenticManager(
        chat_completion_service=service.with_session(stage="manager"),
        prompt_execution_settings=ParrotChatPromptExecutionSettings(),
        max_round_count=1,
    )
    execute(run(MagenticOrchestration(members=members_of(service, 2), manager=manager)))
    assert told
    assert [labels for _, labels in told] == [
        {"session": "visit-7", "stage": "manager"} for _ in told
    ]


class Drafting(KernelProcessStep[None]):
    """Asks a model."""

    @kernel_function(name="draft")
    async def draft(self, context: KernelProcessStepContext, kernel: Kernel, topic: str) -> None:
        text = str(await kernel.invoke_prompt(f"Draft about {topic}."))
        await context.emit_event(process_event="drafted", data=text)


class Improving(KernelProcessStep[None]):
    """Asks a model."""

    @kernel_function(name="improve")
    async def improve(self, kernel: Kernel, text: str) -> None:
        await kernel.invoke_prompt(f"Improve {len(text)} characters.")


# The framework looks at every attribute of a step.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_a_process(server: ScriptedServer, told: list[Told]) -> None:
    """The filter makes each step a stage."""
    # The framework's types are wider than its signatures.
    builder: Any = cast("Any", ProcessBuilder)(name="report")
    drafting, improving = builder.add_step(Drafting), builder.add_step(Improving)
    builder.on_input_event(event_id="begin").send_event_to(target=drafting, parameter_name="topic")
    drafting.on_event(event_id="drafted").send_event_to(target=improving, parameter_name="text")
    service = ParrotChatCompletion(host=server.url).with_session(session="visit-7")
    kernel = Kernel(services=service)
    kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())

    async def process() -> None:
        event = KernelProcessEvent(id="begin", data="tides")
        async with await start(builder.build(), kernel, event):
            pass

    execute(process())
    assert told == [
        ("", {"session": "visit-7", "stage": "Drafting-draft"}),
        ("", {"session": "visit-7", "stage": "Improving-improve"}),
    ]
