"""Programs that take one request when they are planned, and one for each call when not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.functions import KernelArguments, kernel_function

from parrot_integrations.semantic_kernel import ParrotPipeline, aggregate, map_chunks, watch_plans
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.integrations.semantic_kernel.kernel_kit import (
    add,
    kernel_of,
    plain,
    settle,
    streamed,
    trusted,
)

pytestmark = pytest.mark.e2e

TEXT = 'A <b>bold</b> &lt;claim&gt; & "so" it\'s said'


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


class Clock:
    num_calls = 0

    @kernel_function
    def today(self) -> str:
        Clock.num_calls += 1
        return "<Monday> & so on"


def kernel(url: str, *, is_planned: bool) -> Kernel:
    found = kernel_of(url, is_planned=is_planned)
    add(found, "summarise", "Summarise: {{$input}}")
    add(found, "title", "Title for: {{$input}} in {{$lang}}")
    add(found, "critique", "Critique {{w.summarise $input}} titled {{w.title lang='fr'}}")
    found.add_plugin(Clock(), "clock")
    return found


@dataclass(frozen=True)
class Program:
    run: Callable[[Kernel], Awaitable[Any]]
    num_calls: int
    num_sets: int = 0


async def nested(kernel: Kernel) -> Any:
    deep = add(kernel, "deep", "Improve: {{w.critique input=$doc}} then {{w.summarise $doc}}")
    return plain(await kernel.invoke(deep, KernelArguments(doc=TEXT)))


async def nested_stream(kernel: Kernel) -> Any:
    deep = add(kernel, "deep", "Improve: {{w.critique input=$doc}} then {{w.summarise $doc}}")
    return await streamed(kernel, deep, doc=TEXT)


async def prompted(kernel: Kernel) -> Any:
    result = await kernel.invoke_prompt(
        "{{w.summarise $doc}} and {{w.title $doc}}", arguments=KernelArguments(doc=TEXT)
    )
    return plain(result)


async def pipeline(kernel: Kernel) -> Any:
    steps = [kernel.get_function("w", name) for name in ("summarise", "title")]
    tweet = add(kernel, "tweet", "Tweet {{$headline}} about {{$input}}")
    made = ParrotPipeline([steps[0], (steps[1], "headline"), tweet])
    return plain(await made.invoke(kernel, KernelArguments(input=TEXT)))


async def pipeline_stream(kernel: Kernel) -> Any:
    made = ParrotPipeline([kernel.get_function("w", n) for n in ("critique", "title", "summarise")])
    items = made.invoke_stream(kernel, KernelArguments(input=TEXT))
    return "".join([str(item[0]) async for item in items])


async def handlebars(kernel: Kernel) -> Any:
    template = """
        <message role="system">Be {{#if formal}}formal{{else}}brief{{/if}}.</message>
        <message role="user">
        {{#each (array 'one' 'two')}}- {{w-summarise input=this}}{{/each}}
        {{set name="t" value=(w-title input=doc)}} {{get "t"}} {{w-summarise input=(get "t")}}
        </message>
    """
    made = add(kernel, "bars", template, "handlebars")
    return plain(await kernel.invoke(made, KernelArguments(doc=TEXT, formal=True)))


async def jinja(kernel: Kernel) -> Any:
    template = """
        {% for part in parts %}{{ w_summarise(input=w_title(input=part)) }};{% endfor %}
        {% if doc|length > 3 %}{{ w_critique(input=doc) }}{% endif %}
    """
    for name in ("summarise", "title", "critique"):
        function: Any = kernel.get_function("w", name)
        config = function.prompt_template.prompt_template_config
        config.input_variables.extend(trusted("parts"))
    made = add(kernel, "jinja", template, "jinja2", inputs=trusted("parts"))
    return plain(await kernel.invoke(made, KernelArguments(doc=TEXT, parts=["one", "two"])))


async def native(kernel: Kernel) -> Any:
    made = add(kernel, "dated", "On {{clock.today}}: {{w.summarise $doc}} and {{w.title $doc}}")
    Clock.num_calls = 0
    result = plain(await kernel.invoke(made, KernelArguments(doc=TEXT)))
    assert Clock.num_calls == 1
    return result


async def combined(kernel: Kernel) -> Any:
    functions = [kernel.get_function("w", name) for name in ("summarise", "title")]
    return await aggregate(kernel, functions[0], ["1", "2", TEXT], combine=functions[1])


async def mapped(kernel: Kernel) -> Any:
    results = await map_chunks(kernel, kernel.get_function("w", "critique"), ["1", TEXT])
    return [plain(result) for result in results]


PROGRAMS = {
    "five nested": Program(nested, 5),
    "five nested, streamed": Program(nested_stream, 5),
    "an inline prompt": Program(prompted, 3),
    "a pipeline of three": Program(pipeline, 3),
    "a pipeline, streamed": Program(pipeline_stream, 5),
    "handlebars": Program(handlebars, 5),
    "jinja2, doubly nested": Program(jinja, 8),
    "a native function": Program(native, 3, num_sets=1),
    "chunks and a combination": Program(combined, 4),
    "chunks with nested functions": Program(mapped, 6),
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_one_submit(server: ScriptedServer, name: str) -> None:
    program = PROGRAMS[name]
    server.requests.clear()
    with watch_plans() as plans:
        await program.run(kernel(server.url, is_planned=True))
    await settle(server)
    (plan,) = plans
    report = plan.report()
    assert (server.num_submits, server.num_sets) == (1, program.num_sets), str(report)
    assert (report.num_planned, report.num_claimed) == (program.num_calls, program.num_calls)
    assert (report.num_missed, report.num_lost) == (0, 0)


@pytest.mark.parametrize("name", [n for n in PROGRAMS if "pipeline" not in n and "chunks" not in n])
async def test_the_same_without_plans(server: ScriptedServer, name: str) -> None:
    program = PROGRAMS[name]
    planned = await program.run(kernel(server.url, is_planned=True))
    server.requests.clear()
    assert await program.run(kernel(server.url, is_planned=False)) == planned
    assert server.num_submits == program.num_calls
    await settle(server)


@pytest.mark.parametrize("name", [n for n in PROGRAMS if "pipeline" in n or "chunks" in n])
async def test_pipelines_and_chunks_plan_without_a_filter(
    server: ScriptedServer, name: str
) -> None:
    program = PROGRAMS[name]
    filtered = await program.run(kernel(server.url, is_planned=True))
    server.requests.clear()
    assert await program.run(kernel(server.url, is_planned=False)) == filtered
    assert server.num_submits == 1
    await settle(server)
