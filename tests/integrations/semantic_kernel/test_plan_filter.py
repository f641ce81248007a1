"""``ParrotPlanFilter`` among filters, streams, native functions, and when something goes wrong."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from inspect import isasyncgen
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.exceptions import KernelInvokeException
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import FunctionResult, KernelArguments, kernel_function

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.errors import ProgramError
from parrot_integrations.planning.background import background
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.steps import PlannedCall
from parrot_integrations.semantic_kernel import (
    ParrotChatPromptExecutionSettings,
    ParrotPipeline,
    ParrotPlanFilter,
    aggregate,
    map_chunks,
    parrot_session,
    plan_function,
    watch_plans,
)
from parrot_integrations.semantic_kernel.tracer import Tracer
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.kernel_kit import (
    add,
    arguments,
    close_clients,
    failure,
    kernel_of,
    outcome,
    settle,
    streamed,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(fail_on="FAIL", token_s=0.0005)) as server:
        yield server


@pytest.fixture(autouse=True)
def uncounted(server: ScriptedServer) -> None:
    server.requests.clear()


def kernel(url: str, *, is_planned: bool = True, **options: Any) -> Kernel:
    found = kernel_of(url, is_planned=is_planned, **options)
    add(found, "s", "Summarise: {{$input}}")
    add(found, "t", "Title for {{$input}}")
    add(found, "f", "Say {{w.s}} and {{w.t}} so")
    return found


def function(found: Kernel, name: str = "f") -> Any:
    return found.get_function("w", name)


# --- streams ----------------------------------------------------------------------------------


async def test_a_stream_comes_in_pieces_of_the_same_text(server: ScriptedServer) -> None:
    found = kernel(server.url)
    plain = await streamed(kernel(server.url, is_planned=False), function(found), input="x")
    server.requests.clear()
    pieces = 0
    text = ""
    items: Any = found.invoke_stream(function(found), KernelArguments(input="x"))
    async for item in items:
        pieces += 1
        text += str(item[0])
    await settle(server)
    assert (text, server.num_submits) == (plain, 1)
    assert pieces > 1


async def test_a_stream_stays_an_asynchronous_generator(server: ScriptedServer) -> None:
    found = kernel_of(server.url, is_planned=False)
    seen: list[Any] = []

    async def look(context: Any, next: Any) -> None:
        await next(context)
        seen.append(isasyncgen(context.result.value))

    found.add_filter(FilterTypes.FUNCTION_INVOCATION, look)
    found.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter(function_filters="ignore"))
    add(found, "s", "S {{$input}}")
    assert await streamed(found, add(found, "f", "F {{w.s}}"), input="x")
    assert seen[-1] is True
    await settle(server)


@pytest.mark.parametrize(
    ("template", "template_format"),
    [("Say {{w.s}}", "semantic-kernel"), ("Say {{w-s}}", "handlebars"), ("{{ w_s() }}", "jinja2")],
)
async def test_a_stream_that_is_left_is_given_up(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, template: str, template_format: str
) -> None:
    # It logs that a generator is closed elsewhere, with a traceback that keeps the stream alive.
    monkeypatch.setattr(logging.getLogger("opentelemetry.context"), "disabled", True)
    found = kernel(server.url)
    made = add(found, "g", template, template_format)
    stream: Any = found.invoke_stream(made, KernelArguments(input="x"))
    async for _ in stream:
        break
    await stream.aclose()
    del stream
    await settle(server)


async def test_a_stream_that_nobody_reads_is_given_up(server: ScriptedServer) -> None:
    found = kernel_of(server.url, is_planned=False)

    async def drop(context: Any, next: Any) -> None:
        await next(context)
        if context.is_streaming:
            context.result = FunctionResult(function=context.function.metadata, value="mine")

    found.add_filter(FilterTypes.FUNCTION_INVOCATION, drop)
    found.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter(function_filters="ignore"))
    add(found, "s", "S {{$input}}")
    made = add(found, "f", "F {{w.s}}")
    items = [item async for item in found.invoke_stream(made, KernelArguments(input="x"))]
    assert [str(item) for item in items] == ["mine"]
    await settle(server)


# --- filters ----------------------------------------------------------------------------------


class Recorder:
    """Filters that note what they see."""

    def __init__(self, found: Kernel) -> None:
        self.seen: list[Any] = []
        found.add_filter(FilterTypes.FUNCTION_INVOCATION, self.function)
        found.add_filter(FilterTypes.PROMPT_RENDERING, self.prompt)

    async def function(self, context: Any, next: Any) -> None:
        self.seen.append(("begin", context.function.fully_qualified_name, dict(context.arguments)))
        await next(context)
        self.seen.append(("end", context.function.fully_qualified_name, str(context.result)))

    async def prompt(self, context: Any, next: Any) -> None:
        await next(context)
        self.seen.append(("prompt", context.function.fully_qualified_name, context.rendered_prompt))


@pytest.mark.parametrize("is_before", [True, False])
async def test_filters_see_the_same(server: ScriptedServer, is_before: bool) -> None:
    seen = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=False)
        if is_planned and not is_before:
            found.add_filter(
                FilterTypes.FUNCTION_INVOCATION,
                ParrotPlanFilter(prompt_filters="ignore", function_filters="ignore"),
            )
        recorder = Recorder(found)
        if is_planned and is_before:
            found.add_filter(
                FilterTypes.FUNCTION_INVOCATION,
                ParrotPlanFilter(prompt_filters="ignore", function_filters="ignore"),
            )
        server.requests.clear()
        await outcome(found, function(found), input="x")
        seen.append(recorder.seen)
    await settle(server)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 9
    assert server.num_submits == 1


async def test_prompt_filters_keep_a_kernel_from_being_planned(server: ScriptedServer) -> None:
    found = kernel(server.url)
    Recorder(found)
    plan = await plan_function(found, function(found), arguments(input="x"))
    assert "prompt-rendering filters" in str(plan.report())
    with watch_plans() as plans:
        await outcome(found, function(found), input="x")
    await settle(server)
    assert server.num_submits == 3
    assert "prompt-rendering filters" in str(plans[0].report())


async def redact(context: Any, next: Any) -> None:
    await next(context)
    context.rendered_prompt = context.rendered_prompt.replace("secret", "[...]")


async def test_pure_prompt_filters_run_in_the_trace(server: ScriptedServer) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned, prompt_filters="trace")
        found.add_filter(FilterTypes.PROMPT_RENDERING, redact)
        server.requests.clear()
        results.append(await outcome(found, function(found), input="a secret"))
    await settle(server)
    assert results[0] == results[1]
    assert server.num_submits == 1


async def test_a_prompt_filter_may_know_the_result(server: ScriptedServer) -> None:
    async def know(context: Any, next: Any) -> None:
        await next(context)
        if context.function.name == "t":
            metadata = context.function.metadata
            context.function_result = FunctionResult(function=metadata, value="<known>")

    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned, prompt_filters="trace")
        found.add_filter(FilterTypes.PROMPT_RENDERING, know)
        server.requests.clear()
        results.append(await outcome(found, function(found), input="x"))
    await settle(server)
    assert results[0] == results[1]
    assert server.num_submits == 1


def test_prompt_filters_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="cut, trace or ignore"):
        ParrotPlanFilter(prompt_filters="no")  # type: ignore[arg-type]


async def test_a_filter_that_answers_itself_leaves_nothing(server: ScriptedServer) -> None:
    found = kernel(server.url, function_filters="ignore")

    async def cached(context: Any, next: Any) -> None:
        context.result = FunctionResult(function=context.function.metadata, value="cached")

    found.add_filter(FilterTypes.FUNCTION_INVOCATION, cached)
    assert await outcome(found, function(found), input="x") == "cached"
    await settle(server)


async def test_a_filter_that_tries_again(server: ScriptedServer) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned, function_filters="ignore")

        async def twice(context: Any, next: Any) -> None:
            await next(context)
            await next(context)

        found.add_filter(FilterTypes.FUNCTION_INVOCATION, twice)
        with watch_plans() as plans:
            results.append(await outcome(found, function(found), input="x"))
    await settle(server)
    assert results[0] == results[1]
    assert plans[0].report().num_claimed == 3


async def test_clones_of_a_kernel_share_the_filter(server: ScriptedServer) -> None:
    found = kernel(server.url)
    (entry,) = found.function_invocation_filters
    assert copy.deepcopy(entry)[1] is entry[1]
    assert await outcome(found.clone(), function(found), input="x")
    await settle(server)


# --- forecasts that do not come true ------------------------------------------------------------


def rewriting(found: Kernel, name: str) -> None:
    async def rewrite(context: Any, next: Any) -> None:
        await next(context)
        if context.function.name == name:
            context.rendered_prompt += " Be kind."

    found.add_filter(FilterTypes.PROMPT_RENDERING, rewrite)


@pytest.mark.parametrize(("name", "num_claimed"), [("s", 0), ("t", 1), ("f", 2)])
async def test_a_call_that_is_another_ends_the_plan(
    server: ScriptedServer, name: str, num_claimed: int
) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned, prompt_filters="ignore")
        rewriting(found, name)
        with watch_plans() as plans:
            results.append(await outcome(found, function(found), input="x"))
    await settle(server)
    assert results[0] == results[1]
    assert plans[0].report().num_claimed == num_claimed


async def test_one_of_two_alike_that_is_another_ends_the_plan(server: ScriptedServer) -> None:
    found = kernel(server.url, prompt_filters="ignore")

    async def rewrite(context: Any, next: Any) -> None:
        await next(context)
        context.rendered_prompt = context.rendered_prompt.replace("Summarise: y", "Summarise: z")

    found.add_filter(FilterTypes.PROMPT_RENDERING, rewrite)
    made = add(found, "g", "{{w.s}} {{w.s 'y'}} {{w.t}}")
    with watch_plans() as plans:
        await outcome(found, made, input="x")
    await settle(server)
    report = plans[0].report()
    assert (report.num_claimed, report.num_missed) == (1, 3)


async def test_functions_whose_plans_come_apart_are_planned_no_more(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    found = kernel(server.url, prompt_filters="ignore")
    rewriting(found, "s")
    with watch_plans() as plans, caplog.at_level(logging.WARNING, "parrot_integrations"):
        for _ in range(5):
            await outcome(found, function(found), input="x")
    await settle(server)
    assert len(plans) == 3
    (record,) = [r for r in caplog.records if r.name.startswith("parrot_integrations")]
    assert "w-f is not planned any more" in record.getMessage()


async def test_pipelines_whose_plans_come_apart_are_planned_no_more(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    found = kernel(server.url, is_planned=False)
    rewriting(found, "s")
    pipeline = ParrotPipeline([function(found, "t"), function(found)], prompt_filters="ignore")
    with watch_plans() as plans, caplog.at_level(logging.WARNING, "parrot_integrations"):
        for _ in range(5):
            await pipeline.invoke(found, KernelArguments(input="x"))
    await settle(server)
    assert len(plans) == 3
    assert "a pipeline is not planned any more" in caplog.text


@pytest.mark.parametrize("template_format", ["semantic-kernel", "jinja2"])
async def test_functions_that_invoke_themselves(
    server: ScriptedServer, template_format: str
) -> None:
    found = kernel(server.url, is_planned=False)
    call = "{{w.g}}" if template_format == "semantic-kernel" else "{{ w_g() }}"
    made = add(found, "g", f"{call} {call}", template_format)
    plan = await plan_function(found, made, arguments(input="x"))
    assert "deeper ones" in str(plan.report())


async def test_a_plan_that_holds_forgives_those_before(server: ScriptedServer) -> None:
    found = kernel(server.url, prompt_filters="ignore")
    rewriting(found, "s")
    filters = list(found.prompt_rendering_filters)
    with watch_plans() as plans:
        for number in range(8):
            found.prompt_rendering_filters[:] = [] if number % 3 == 2 else filters
            await outcome(found, function(found), input="x")
    await settle(server)
    assert len(plans) == 8


async def test_a_filter_that_changes_arguments(server: ScriptedServer) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned, function_filters="ignore")

        async def change(context: Any, next: Any) -> None:
            context.arguments["input"] = "y"
            await next(context)

        found.add_filter(FilterTypes.FUNCTION_INVOCATION, change)
        results.append(await outcome(found, function(found), input="x"))
    await settle(server)
    assert results[0] == results[1]


# --- native functions and tools -----------------------------------------------------------------


class Native:
    """Functions that use the kernel themselves."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    @kernel_function
    async def one(self, kernel: Kernel, input: str) -> str:
        self.calls["one"] += 1
        return str(await kernel.invoke(kernel.get_function("w", "s"), KernelArguments(input=input)))

    @kernel_function
    async def many(self, kernel: Kernel, input: str) -> str:
        self.calls["many"] += 1
        made = kernel.get_function("w", "f")
        results = await asyncio.gather(
            *(kernel.invoke(made, KernelArguments(input=f"{input} {i}")) for i in range(3))
        )
        return "; ".join(map(str, results))

    @kernel_function
    def tool(self, input: str = "") -> str:
        self.calls["tool"] += 1
        return f"tool of {input}"


@pytest.mark.parametrize(
    ("template", "num_plans", "num_submits"),
    [
        ("{{n.one}} {{w.s}} {{w.t}}", 1, 2),
        ("{{n.many}} {{w.s}} {{w.t}}", 4, 4),
        ("{{w.f}} {{n.many}} {{w.s}}", 4, 4),
    ],
)
async def test_functions_that_native_ones_invoke_are_planned_by_themselves(
    server: ScriptedServer, template: str, num_plans: int, num_submits: int
) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        native = Native()
        found.add_plugin(native, "n")
        made = add(found, "g", template)
        server.requests.clear()
        with watch_plans() as plans:
            results.append((await outcome(found, made, input="x"), native.calls))
    await settle(server)
    assert results[0] == results[1]
    reports = [plan.report() for plan in plans]
    assert [report.num_wasted for report in reports] == [0] * num_plans
    assert server.num_submits == num_submits


async def test_invocations_at_the_same_time_do_not_mix(server: ScriptedServer) -> None:
    found, plain = kernel(server.url), kernel(server.url, is_planned=False)
    expected = [await outcome(plain, function(plain), input=str(i)) for i in range(6)]
    server.requests.clear()
    with watch_plans() as plans:
        results = await asyncio.gather(
            *(outcome(found, function(found), input=str(i)) for i in range(6))
        )
    await settle(server)
    assert results == expected
    assert server.num_submits == 6
    assert [plan.report().num_missed for plan in plans] == [0] * 6


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_tools(server: ScriptedServer, is_streaming: bool) -> None:
    results = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        native = Native()
        found.add_plugin(native, "n")
        settings = ParrotChatPromptExecutionSettings(
            service_id="default",
            function_choice_behavior=FunctionChoiceBehavior.Auto(
                filters={"included_functions": ["n-tool"]}
            ),
        )
        add(found, "asks", "Call n-tool(x) {{w.s}} {{$input}}", settings=settings)
        made = add(found, "g", "{{w.t}} {{w.asks}} {{w.s}}")
        with watch_plans() as plans:
            if is_streaming:
                text = await streamed(found, function(found, "asks"), input="x")
            else:
                text = await outcome(found, made, input="x")
            results.append((text, native.calls["tool"]))
    await settle(server)
    assert results[0] == results[1]
    assert results[0][1] == 1
    report = plans[0].report()
    assert report.num_wasted == 0, str(report)
    assert "may ask for tools" in str(report)


# --- wishes -------------------------------------------------------------------------------------


async def test_strict(server: ScriptedServer) -> None:
    found = kernel(server.url, strict=True)
    assert await outcome(found, function(found), input="x")
    native = Native()
    found.add_plugin(native, "n")
    made = add(found, "g", "{{n.tool}} {{w.s}} {{w.t}}")
    with pytest.raises(KernelInvokeException) as caught:
        await found.invoke(made, KernelArguments(input="x"))
    assert isinstance(caught.value.__cause__, ProgramError)
    assert caught.value.__cause__.code == "not_planned"
    assert "n-tool cannot be planned" in str(caught.value.__cause__)
    with pytest.raises(ProgramError, match="n-tool"):
        await plan_function(found, made, KernelArguments(input="x"), strict=True)
    with pytest.raises(ProgramError, match="n-tool"):
        await ParrotPipeline([made, function(found)], strict=True).invoke(
            found, KernelArguments(input="x")
        )
    assert native.calls["tool"] == 0
    await settle(server)


async def test_one_call_is_not_planned(server: ScriptedServer) -> None:
    found = kernel(server.url)
    with watch_plans() as plans:
        await outcome(found, function(found, "s"), input="x")
    await settle(server)
    assert plans == []


async def test_a_defect_of_the_tracer_is_logged(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = kernel(server.url)
    expected = await outcome(kernel(server.url, is_planned=False), function(found), input="x")

    async def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(Tracer, "trace", broken)
    assert await outcome(found, function(found), input="x") == expected
    pipeline = ParrotPipeline([function(found)])
    assert str(await pipeline.invoke(found, KernelArguments(input="x")))
    assert await aggregate(found, function(found), ["x"])
    await settle(server)
    assert {record.name.rpartition(".")[2] for record in caplog.records} >= {"foresight"}
    assert all(r.exc_info for r in caplog.records if r.name.endswith("foresight"))


async def test_labels_of_sessions(server: ScriptedServer) -> None:
    found = kernel(server.url)
    found.add_plugin(Native(), "n")

    terms: list[tuple[str, dict[str, Any], set[str | None]]] = []

    async def run() -> None:
        with watch_plans() as plans:
            await outcome(found, function(found), input="x")
            await outcome(found, found.get_function("n", "many"), input="x")
        terms.extend(
            (plan._terms.app, dict(plan._terms.metadata or {}), _stages(plan)) for plan in plans[:2]
        )

    await run()
    with parrot_session(app="reports", session="s", stage="mine", metadata={"user": 7}):
        await run()
    await settle(server)
    told = {"session": "s", "user": 7}
    assert terms == [
        ("w-f", {}, {None}),
        ("w-f", {}, {"n-many"}),
        ("reports", told, {"mine"}),
        ("reports", told, {"mine"}),
    ]


def _stages(plan: Plan) -> set[str | None]:
    return {step.stage for step in plan.program.steps if isinstance(step, PlannedCall)}


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["{{w.s}} FAIL", "{{w.bad}} {{w.s}}", "{{w.s}} {{w.bad}}"])
@pytest.mark.parametrize("is_streaming", [False, True])
async def test_errors_are_those_of_plain_kernels(
    server: ScriptedServer, template: str, is_streaming: bool
) -> None:
    errors: list[Any] = []
    for is_planned in (False, True):
        found = kernel(server.url, is_planned=is_planned)
        add(found, "bad", "FAIL {{$input}}")
        made = add(found, "g", template)
        try:
            errors.append(await (streamed if is_streaming else outcome)(found, made, input="x"))
        except Exception as exc:  # noqa: BLE001 - they are compared
            errors.append(failure(exc))
    await settle(server)
    assert errors[0] == errors[1]
    assert isinstance(errors[0], tuple)


async def test_a_run_that_is_cancelled_leaves_nothing(server: ScriptedServer) -> None:
    found = kernel(server.url)
    for num_steps in (0, 1, 3, 10, 30, 100):
        task = asyncio.create_task(outcome(found, function(found), input="x"))
        for _ in range(num_steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await settle(server)


class Ending:
    """A server, and a function that ends it."""

    def __init__(self, *, is_restarted: bool) -> None:
        self.is_restarted = is_restarted
        self.blocks = [scripted_server()]
        self.url = self.blocks[0].__enter__().url

    @kernel_function
    def restart(self) -> str:
        self.end()
        if self.is_restarted:
            self.blocks.append(scripted_server(port=int(self.url.rpartition(":")[2])))
            self.blocks[0].__enter__()
        return "restarted"

    def end(self) -> None:
        while self.blocks:
            self.blocks.pop().__exit__(None, None, None)


@pytest.mark.parametrize("is_restarted", [True, False])
async def test_a_server_that_ends_in_the_middle(is_restarted: bool) -> None:
    """The calls after the native function find a server without the plan, or none."""
    results = []
    for is_planned in (False, True):
        ending = Ending(is_restarted=is_restarted)
        found = kernel(ending.url, is_planned=is_planned)
        found.add_plugin(ending, "n")
        made = add(found, "g", "{{w.s}} {{n.restart}} {{w.t}}")
        try:
            results.append(await outcome(found, made, input="x"))
        finally:
            ending.end()
            assert background().settle(20)
            await close_clients()
    if is_restarted:
        assert results[0] == results[1]
        assert isinstance(results[0], list)
    else:
        # The second call of the plan may be done before the server ends; the last cannot.
        assert [(result[0], result[-1]) for result in results] == [
            ("KernelInvokeException", "ConnectError")
        ] * 2


async def test_pipelines_and_chunks_fail_as_the_framework_does(server: ScriptedServer) -> None:
    found = kernel(server.url)
    pipeline = ParrotPipeline([function(found, "s"), function(found)])
    with pytest.raises(KernelInvokeException):
        await pipeline.invoke(found, KernelArguments(input="FAIL"))
    with pytest.raises(KernelInvokeException):
        async for _ in pipeline.invoke_stream(found, KernelArguments(input="FAIL")):
            pass
    with pytest.raises(Exception, match="invoking function s"):
        await map_chunks(found, function(found, "s"), ["a", "FAIL", "b"])
    with pytest.raises(ValueError, match="at least one"):
        ParrotPipeline([])
    assert await map_chunks(found, function(found, "s"), []) == []
    assert await aggregate(found, function(found, "s"), []) == ""
    await settle(server)
