"""Filters of the user that may refuse or change what is asked, and several planners."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import FunctionResult, KernelArguments, kernel_function
from semantic_kernel.prompt_template import PromptTemplateConfig

from parrot_integrations.semantic_kernel import (
    ParrotPipeline,
    ParrotPlanFilter,
    ParrotSequentialOrchestration,
    aggregate,
    map_chunks,
    plan_function,
    traceable_step,
    watch_plans,
)
from tests.helpers.scripted_server import ScriptedServer
from tests.integrations.semantic_kernel.kernel_kit import (
    add,
    arguments,
    chat,
    kernel_of,
    outcome,
    settle,
    streamed,
)

pytestmark = pytest.mark.e2e

FUNCTION = FilterTypes.FUNCTION_INVOCATION


async def guard(context: Any, next: Any) -> None:
    """Refuse to ask for secrets, and take names out of arguments."""
    if context.function.name == "secret":
        context.result = FunctionResult(function=context.function.metadata, value="refused")
        return
    context.arguments["input"] = context.arguments["input"].replace("Ada", "somebody")
    await next(context)


class Logger:
    """Filters that only look."""

    @traceable_step
    async def method(self, context: Any, next: Any) -> None:
        await next(context)

    @traceable_step
    async def __call__(self, context: Any, next: Any) -> None:
        await next(context)


def kernel(url: str, *filters: Any) -> Kernel:
    found = kernel_of(url, is_planned=False)
    for one in filters:
        found.add_filter(FUNCTION, one)
    add(found, "secret", "The secret of {{$input}}")
    add(found, "s", "Summarise: {{$input}}")
    add(found, "f", "Say {{w.s}} and {{w.secret}} so")
    return found


@pytest.mark.parametrize("is_first", [True, False])
async def test_no_model_is_asked_what_a_filter_refuses(
    server: ScriptedServer, is_first: bool
) -> None:
    seen = []
    for filters in ([guard], [ParrotPlanFilter(), guard][:: 1 if is_first else -1]):
        found = kernel(server.url, *filters)
        server.requests.clear()
        with watch_plans() as plans:
            result = await outcome(found, found.get_function("w", "f"), input="Ada")
        assert not any(one.report().num_planned for one in plans)
        seen.append((result, server.num_submits))
    await settle(server)
    assert seen[0] == seen[1]
    assert seen[0][1] == 2


async def test_all_that_plans_takes_the_wish(server: ScriptedServer) -> None:
    found = kernel(server.url, guard)
    f, s = found.get_function("w", "f"), found.get_function("w", "s")
    plan = await plan_function(found, f, arguments(input="x"))
    (note,) = plan.report().cuts
    assert note.why == ("the kernel has function-invocation filters (guard), see function_filters")
    plan = await plan_function(found, f, arguments(input="x"), function_filters="ignore")
    assert plan.report().num_planned == 3
    for wish, num_plans in (("cut", 0), ("ignore", 1)):
        wishes: Any = {"function_filters": wish}
        for run in (
            lambda w=wishes: ParrotPipeline([s, s], **w).invoke(found, arguments(input="x")),
            lambda w=wishes: map_chunks(found, s, ["x", "y"], **w),
            lambda w=wishes: aggregate(found, s, ["x", "y"], combine=s, **w),
        ):
            with watch_plans() as plans:
                await run()
            assert len([one for one in plans if one.report().num_planned]) == num_plans
    await settle(server)
    with pytest.raises(ValueError, match="cut or ignore"):
        ParrotPlanFilter(function_filters="no")  # type: ignore[arg-type]


async def test_functions_in_instructions_are_cut(server: ScriptedServer) -> None:
    found = kernel(server.url, guard)
    config = PromptTemplateConfig(template="You {{w.s 'x'}}")
    members: list[Any] = [
        ChatCompletionAgent(
            service=chat(server.url),
            kernel=found,
            name=name,
            description="d",
            prompt_template_config=config,
            function_choice_behavior=FunctionChoiceBehavior.NoneInvoke(),
        )
        for name in ("a", "b")
    ]
    plan = await ParrotSequentialOrchestration(members=members).plan("x")
    assert {note.where for note in plan.report().cuts} == {"w-s"}


@pytest.mark.parametrize("harmless", [Logger(), Logger().method, ParrotPlanFilter()])
async def test_filters_that_are_declared_harmless_do_not_count(
    server: ScriptedServer, harmless: Any
) -> None:
    found = kernel(server.url, ParrotPlanFilter(), harmless)
    with watch_plans() as plans:
        await outcome(found, found.get_function("w", "f"), input="x")
    await settle(server)
    assert [one.report().num_claimed for one in plans] == [3]


async def test_one_warning_names_the_filters(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    found = kernel(server.url, ParrotPlanFilter(), guard)
    found.add_filter(FilterTypes.PROMPT_RENDERING, guard)
    pipeline = ParrotPipeline([found.get_function("w", "s")] * 2)
    with caplog.at_level(logging.WARNING, "parrot_integrations"):
        for _ in range(2):
            await outcome(found, found.get_function("w", "f"), input="x")
            await outcome(found.clone(), found.get_function("w", "f"), input="x")
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "nothing is planned on a kernel with function-invocation filters (guard)",
            "nothing is planned on a kernel with prompt-rendering filters (guard)",
        ]
        assert 'say function_filters="ignore"' in caplog.records[0].getMessage()
        for _ in range(2):
            await pipeline.invoke(found, KernelArguments(input="x"))
        assert len(caplog.records) == 4
    await settle(server)


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize("run", [outcome, streamed])
async def test_a_kernel_with_two_planners_is_planned_once(
    server: ScriptedServer, is_same: bool, run: Any
) -> None:
    planner = ParrotPlanFilter()
    found = kernel(server.url, planner, planner if is_same else ParrotPlanFilter())
    with watch_plans() as plans:
        await run(found, found.get_function("w", "f"), input="x")
    await settle(server)
    assert [one.report().num_claimed for one in plans] == [3]
    assert server.num_submits == 1


async def test_planned_functions_nest_as_deep_as_with_any_filter(server: ScriptedServer) -> None:
    files: list[str] = []

    @kernel_function(name="look")
    def look() -> str:
        files.extend(frame.filename for frame in inspect.stack(context=0))
        return "seen"

    found = kernel(server.url, ParrotPlanFilter())
    found.add_function("n", look)
    add(found, "g", "G {{n.look}}")
    made = add(found, "h", "H {{w.g}} {{w.s}}")
    await outcome(found, made, input="x")
    await settle(server)
    # One frame for each of the three functions.
    assert len([file for file in files if file.endswith("plan_filter.py")]) == 3
