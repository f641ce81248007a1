"""Instructions of agents that call functions are planned with the orchestration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.exceptions import KernelException
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt, kernel_function
from semantic_kernel.kernel import Kernel
from semantic_kernel.prompt_template import PromptTemplateConfig

from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotPlanFilter,
    watch_plans,
)
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.orchestra import (
    KINDS,
    PLAIN,
    PLANNED,
    Heard,
    build,
    execute,
    run,
    settle,
    texts,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: ScriptedServer) -> Iterator[None]:
    server.requests.clear()
    yield
    settle(server)


class Clock:
    """What time it is."""

    def __init__(self) -> None:
        self.times = 0

    @kernel_function(name="now")
    def now(self) -> str:
        self.times += 1
        return "noon & <b>"


def kernel_of(server: ScriptedServer, clock: Clock, *, has_filter: bool) -> Kernel:
    kernel = Kernel(services=ParrotChatCompletion(host=server.url))
    kernel.add_plugin(clock, "clock")
    tone = KernelFunctionFromPrompt("tone", "w", prompt="The tone of {{$what}} & {{w.mood}}?")
    mood = KernelFunctionFromPrompt("mood", "w", prompt="A mood?")
    kernel.add_functions("w", [tone, mood])
    if has_filter:
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())
    return kernel


def members(kernel: Kernel, *instructions: str, form: Any = "semantic-kernel") -> list[Any]:
    more = {"function_choice_behavior": FunctionChoiceBehavior.NoneInvoke()}
    return agents_with(kernel, *instructions, form=form, **more)


def agents_with(kernel: Kernel, *instructions: str, form: Any, **more: Any) -> list[Any]:
    return [
        ChatCompletionAgent(
            name=f"agent{i}",
            description=f"Agent {i}",
            kernel=kernel,
            prompt_template_config=PromptTemplateConfig(template=text, template_format=form),
            arguments=KernelArguments(what="tides"),
            **more,
        )
        for i, text in enumerate(instructions)
    ]


@pytest.mark.parametrize("has_filter", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_prompt_functions_in_instructions(
    server: ScriptedServer, kind: str, has_filter: bool
) -> None:
    def outcome(classes: dict[str, Any]) -> Any:
        kernel = kernel_of(server, Clock(), has_filter=has_filter and classes is PLANNED)
        who = members(kernel, "Write in {{w.tone}}.", "Improve.")
        return texts(execute(run(build(classes, kind, who, Heard(), rounds=3))))

    plainly = outcome(PLAIN)
    server.requests.clear()
    with watch_plans() as plans:
        assert outcome(PLANNED) == plainly
    assert server.num_submits == 1
    assert server.num_sets == 0
    (report,) = (plan.report() for plan in plans)
    assert report.num_planned == report.num_claimed == (7 if kind == "group chat" else 4)


@pytest.mark.parametrize("has_filter", [False, True])
def test_native_functions_in_instructions(server: ScriptedServer, has_filter: bool) -> None:
    clock = Clock()

    def outcome(classes: dict[str, Any]) -> Any:
        kernel = kernel_of(server, clock, has_filter=has_filter and classes is PLANNED)
        who = members(kernel, "Draft.", "It is {{clock.now}}.", "Improve.")
        return texts(execute(run(build(classes, "sequential", who, Heard(), rounds=3))))

    plainly = outcome(PLAIN)
    assert clock.times == 1
    server.requests.clear()
    with watch_plans() as plans:
        assert outcome(PLANNED) == plainly
    assert clock.times == 2
    assert (server.num_submits, server.num_sets) == (1, 1)
    (report,) = (plan.report() for plan in plans)
    assert report.num_claimed == 3
    assert [note.where for note in report.late] == ["clock-now"]


def test_handlebars_is_not_rendered_beforehand(server: ScriptedServer) -> None:
    """It patches asyncio, and the orchestration could not begin any more."""
    kernel = kernel_of(server, Clock(), has_filter=False)
    who = members(kernel, "Draft.", "Improve.", form="handlebars")
    orchestration = build(PLANNED, "sequential", who, Heard(), rounds=2)
    with patch("nest_asyncio.apply", side_effect=AssertionError):
        (note,) = execute(orchestration.plan("Tides")).report().cuts
    assert "HandlebarsPromptTemplate with functions patches asyncio" in note.why


def test_jinja2_is_planned(server: ScriptedServer) -> None:
    """It awaits functions; asyncio stays as it is."""

    def outcome(classes: dict[str, Any]) -> Any:
        kernel = kernel_of(server, Clock(), has_filter=False)
        function = KernelFunctionFromPrompt(
            "place", "w", prompt="A place, {{ w_mood() }}?", template_format="jinja2"
        )
        kernel.add_function("w", function)
        who = members(kernel, "In {{ w_place() }}.", "At {{ clock_now() }}.", form="jinja2")
        return texts(execute(run(build(classes, "sequential", who, Heard(), rounds=2))))

    with patch("nest_asyncio.apply", side_effect=AssertionError):
        plainly = outcome(PLAIN)
        server.requests.clear()
        with watch_plans() as plans:
            assert outcome(PLANNED) == plainly
    assert server.num_submits == 1
    (report,) = (plan.report() for plan in plans)
    assert (report.num_planned, report.num_claimed, report.num_missed) == (4, 4, 0), str(report)
    assert not getattr(asyncio, "_nest_patched", False)


def test_functions_that_patch_asyncio_are_not_rendered_beforehand(server: ScriptedServer) -> None:
    kernel = kernel_of(server, Clock(), has_filter=False)
    function = KernelFunctionFromPrompt(
        "place", "w", prompt="A place?", template_format="handlebars"
    )
    kernel.add_function("w", function)
    who = members(kernel, "Write in {{w.tone}}.", "Improve.")
    orchestration = build(PLANNED, "sequential", who, Heard(), rounds=2)
    with patch("nest_asyncio.apply", side_effect=AssertionError):
        (note,) = execute(orchestration.plan("Tides")).report().cuts
    assert note.why == "in its instructions, w-place may patch asyncio"


def test_agents_offer_their_functions_unless_they_are_told_not_to(server: ScriptedServer) -> None:
    kernel = kernel_of(server, Clock(), has_filter=False)
    who = agents_with(kernel, "Draft.", "Improve.", form="semantic-kernel")
    orchestration = build(PLANNED, "sequential", who, Heard(), rounds=2)
    (note,) = execute(orchestration.plan("Tides")).report().cuts
    assert note.why == "its model may ask for tools"


def test_a_function_of_another_server(server: ScriptedServer) -> None:
    kernel = kernel_of(server, Clock(), has_filter=False)
    elsewhere = ParrotChatCompletion(host=server.url.replace("127.0.0.1", "localhost"))
    first, second = members(kernel, "Draft.", "Write in {{w.mood}}.")
    second.kernel = Kernel(plugins=kernel.plugins, services=elsewhere)
    orchestration = build(PLANNED, "sequential", [first, second], Heard(), rounds=2)
    (note,) = execute(orchestration.plan("Tides")).report().cuts
    assert note.why == "its model is on another server than those before"


def test_instructions_that_cannot_be_rendered(server: ScriptedServer) -> None:
    def outcome(classes: dict[str, Any]) -> str:
        kernel = kernel_of(server, Clock(), has_filter=False)
        who = members(kernel, "Write in {{w.nothing}}.", "Improve.")
        with pytest.raises(KernelException) as caught:
            execute(run(build(classes, "sequential", who, Heard(), rounds=2)))
        return str(caught.value)

    assert outcome(PLANNED) == outcome(PLAIN)
