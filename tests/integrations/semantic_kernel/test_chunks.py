"""Functions over chunks, and pipelines: as one would write them by hand, in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.exceptions import FunctionExecutionException, OperationCancelledException
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelArguments, kernel_function
from semantic_kernel.text.function_extension import aggregate_chunked_results

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.errors import ProgramError
from parrot_integrations.semantic_kernel import (
    ParrotPipeline,
    aggregate,
    chunks,
    map_chunks,
    watch_plans,
)
from parrot_integrations.semantic_kernel.filters import PromptFilters
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.kernel_kit import add, kernel_of, plain, settle

pytestmark = pytest.mark.e2e

CHUNKS = ["one", "<two> & 'three'", "", " four ", "one"]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(fail_on="FAIL")) as server:
        yield server


class Native:
    def __init__(self) -> None:
        self.num_cancelled = 0

    @kernel_function
    async def asks(self, kernel: Kernel, input: str) -> str:
        return str(await kernel.invoke(kernel.get_function("w", "s"), KernelArguments(input="x")))

    @kernel_function
    async def waits(self, input: str) -> str:
        if not input:
            raise ValueError("as it does")
        try:
            await asyncio.Event().wait()
        finally:
            self.num_cancelled += 1
        return "never"

    @kernel_function
    def marked(self, input: str) -> str:
        return f"<{input}>"

    @kernel_function
    def cancelled(self, input: str) -> str:
        raise OperationCancelledException("as it is")


@pytest.fixture
def kernel(server: ScriptedServer) -> Kernel:
    found = kernel_of(server.url)
    add(found, "s", "Summarise in {{$lang}}: {{$input}}")
    add(found, "t", "Title {{w.s}} of {{$input}}")
    found.add_plugin(Native(), "n")
    server.requests.clear()
    return found


@pytest.mark.parametrize("name", ["s", "t"])
async def test_chunks_as_the_framework_aggregates_them(
    server: ScriptedServer, kernel: Kernel, name: str
) -> None:
    function = kernel.get_function("w", name)
    text = await aggregate(kernel, function, CHUNKS, KernelArguments(lang="fr"))
    assert server.num_submits == 1
    by_hand = await aggregate_chunked_results(
        function, list(CHUNKS), kernel, KernelArguments(lang="fr")
    )
    assert text == by_hand
    await settle(server)


async def test_arguments_stay_as_they_are(server: ScriptedServer, kernel: Kernel) -> None:
    given = KernelArguments(lang="fr")
    results = await map_chunks(kernel, kernel.get_function("w", "s"), CHUNKS, given)
    assert dict(given) == {"lang": "fr"}
    assert len(results) == len(CHUNKS)
    assert plain(results[0]) == plain(results[4]) != plain(results[1])
    await settle(server)


async def test_many_chunks_are_several_plans(
    server: ScriptedServer, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = [kernel.get_function("w", name) for name in "st"]
    expected = await aggregate(kernel, functions[0], CHUNKS, combine=functions[1])
    assert server.num_submits == 1
    monkeypatch.setattr(chunks, "MAX_CALLS", 2)
    with watch_plans() as plans:
        assert await aggregate(kernel, functions[0], CHUNKS, combine=functions[1]) == expected
    # That of the combination is its own.
    assert [plan.report().num_claimed for plan in plans] == [2, 2, 1, 2]
    await settle(server)


async def test_a_native_function_over_chunks(server: ScriptedServer, kernel: Kernel) -> None:
    function = kernel.get_function("n", "marked")
    text = await aggregate(
        kernel, function, ["a", "b"], combine=kernel.get_function("w", "t"), separator=" & "
    )
    by_hand = await kernel.invoke(kernel.get_function("w", "t"), KernelArguments(input="<a> & <b>"))
    assert text == str(by_hand)
    await settle(server)


async def test_one_chunk_that_fails_ends_all(server: ScriptedServer, kernel: Kernel) -> None:
    function = kernel.get_function("w", "s")
    with pytest.raises(FunctionExecutionException):
        await map_chunks(kernel, function, ["a", "FAIL", *("b" for _ in range(20))])
    await settle(server)


async def test_chunks_beside_one_that_fails_are_given_up(
    server: ScriptedServer, kernel: Kernel
) -> None:
    native = Native()
    kernel.add_plugin(native, "waiting")
    with pytest.raises(ValueError, match="as it does"):
        await map_chunks(kernel, kernel.get_function("waiting", "waits"), ["a", "b", ""])
    assert native.num_cancelled == 2
    await settle(server)


async def test_chunks_that_are_cancelled_leave_nothing(
    server: ScriptedServer, kernel: Kernel
) -> None:
    function = kernel.get_function("w", "t")
    for num_steps in (0, 1, 5, 20):
        task = asyncio.create_task(map_chunks(kernel, function, CHUNKS))
        for _ in range(num_steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await settle(server)


async def by_hand(kernel: Kernel, steps: list[Any], **values: Any) -> Any:
    result = None
    state = KernelArguments(**values)
    for function, name in steps:
        result = await kernel.invoke(function, KernelArguments(**state))
        state[name] = str(result)
    return plain(result)


async def test_pipelines_as_one_would_write_them(server: ScriptedServer, kernel: Kernel) -> None:
    steps = [
        (kernel.get_function("n", "marked"), "input"),
        (kernel.get_function("w", "s"), "lang"),
        (kernel.get_function("w", "t"), "input"),
    ]
    given = KernelArguments(input="<a>", lang="de")
    with watch_plans() as plans:
        planned = await ParrotPipeline([steps[0][0], *steps[1:]]).invoke(kernel, given)
    assert dict(given) == {"input": "<a>", "lang": "de"}
    assert plain(planned) == await by_hand(kernel, steps, input="<a>", lang="de")
    report = plans[0].report()
    assert (report.num_planned, report.num_claimed, report.num_missed) == (3, 3, 0), str(report)
    await settle(server)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("has_filter", [True, False])
async def test_native_functions_that_ask_models(
    server: ScriptedServer, is_first: bool, has_filter: bool
) -> None:
    kernels = [kernel_of(server.url, is_planned=has_filter), kernel_of(server.url)]
    results = []
    for kernel in kernels:
        add(kernel, "s", "Summarise: {{$input}}")
        kernel.add_plugin(Native(), "n")
        inner = add(kernel, "g", "Say {{n.asks}} and {{w.s}}")
        steps = [kernel.get_function("n", "asks") if is_first else inner]
        steps += [kernel.get_function("w", "s"), kernel.get_function("w", "s")]
        if kernel is kernels[0]:
            with watch_plans() as plans:
                result = await ParrotPipeline(steps).invoke(kernel, KernelArguments(input="y"))
            results.append(plain(result))
        else:
            results.append(await by_hand(kernel, [(s, "input") for s in steps], input="y"))
    await settle(server)
    assert results[0] == results[1]
    assert plans[0].report().num_wasted == 0, str(plans[0].report())


async def test_what_a_pipeline_would_submit(server: ScriptedServer, kernel: Kernel) -> None:
    pipeline = ParrotPipeline([kernel.get_function("w", name) for name in "st"])
    plan = await pipeline.plan(kernel, KernelArguments(input="x", lang="de"))
    assert "planned 3 calls" in str(plan.report())
    assert plan.to_mermaid().count("-->") >= 2
    assert server.num_submits == 0


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_a_pipeline_ends_where_the_framework_does(
    server: ScriptedServer, kernel: Kernel, is_streaming: bool
) -> None:
    pipeline = ParrotPipeline(
        [kernel.get_function("n", "cancelled"), *(kernel.get_function("w", n) for n in "st")]
    )
    given = KernelArguments(input="x")
    if is_streaming:
        assert [item async for item in pipeline.invoke_stream(kernel, given)] == []
    else:
        assert await pipeline.invoke(kernel, given) is None
    await settle(server)


async def looks(context: Any, next: Any) -> None:
    await next(context)


async def test_chunks_on_a_kernel_with_prompt_filters(
    server: ScriptedServer, kernel: Kernel
) -> None:
    kernel.add_filter(FilterTypes.PROMPT_RENDERING, looks)
    function = kernel.get_function("w", "s")
    with watch_plans() as plans:
        await map_chunks(kernel, function, CHUNKS)
    assert server.num_submits == len(CHUNKS)
    (line,) = str(plans[0].report()).splitlines()[1:]
    assert line.endswith(
        f"prompt-rendering filters (looks), see prompt_filters ({len(CHUNKS)} times)"
    )
    words: tuple[PromptFilters, ...] = ("ignore", "trace")
    for word in words:
        server.requests.clear()
        await map_chunks(kernel, function, CHUNKS, prompt_filters=word)
        await aggregate(kernel, function, CHUNKS, prompt_filters=word)
        assert server.num_submits == 2
    for over_chunks in (map_chunks, aggregate):
        with pytest.raises(ProgramError, match="prompt-rendering filters"):
            await over_chunks(kernel, function, CHUNKS, strict=True)
        with pytest.raises(ValueError, match="cut, trace or ignore"):
            await over_chunks(kernel, function, CHUNKS, prompt_filters="no")  # type: ignore[arg-type]
    await settle(server)


@pytest.mark.parametrize("over_chunks", [map_chunks, aggregate])
async def test_one_text_is_no_list_of_texts(
    server: ScriptedServer, kernel: Kernel, over_chunks: Any
) -> None:
    with pytest.raises(TypeError, match="not one text"):
        await over_chunks(kernel, kernel.get_function("w", "s"), "hello")
    assert server.num_submits == 0


@pytest.mark.parametrize("step", ["a", ("a", "b"), ("s",), ("s", 1), ("s", "x", "y")])
def test_what_is_no_step_of_a_pipeline(kernel: Kernel, step: Any) -> None:
    function = kernel.get_function("w", "s")
    if isinstance(step, tuple):
        step = tuple(function if item == "s" else item for item in step)
    with pytest.raises(TypeError, match="a step is a function"):
        ParrotPipeline([function, step])
