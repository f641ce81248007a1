"""Plans on vLLM with the tiny model: every call of a run is one that was planned.

Texts are not compared with those of runs without a plan: at a seam, tokens may differ.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.functions import KernelArguments, kernel_function

from parrot_integrations.planning.background import background
from parrot_integrations.planning.plan import Plan
from parrot_integrations.semantic_kernel import (
    ParrotChatPromptExecutionSettings,
    ParrotPipeline,
    ParrotTextCompletion,
    ParrotTextPromptExecutionSettings,
    aggregate,
    map_chunks,
    watch_plans,
)
from tests.integrations.semantic_kernel.kernel_kit import add, arguments, kernel_of
from tests.integrations.semantic_kernel.orchestra import KINDS, PLANNED, Heard, build, execute, run
from tests.integrations.semantic_kernel.orchestra import agents as agents_of

pytestmark = [pytest.mark.vllm, pytest.mark.e2e]

EXAMPLES = Path(__file__).parents[3] / "examples" / "semantic_kernel"

#: With a value that the client sets, and transforms of generated ones.
TEMPLATES = {
    "semantic-kernel": "<message role='user'>{{w.s}} & {{n.now}}</message> {{w.t}}",
    "handlebars": "<message role='user'>{{w-s}} & {{n-now}}</message> {{w-t}}",
    "jinja2": "<message role='user'>{{ w_s()|trim }} & {{ n_now() }}</message> {{ w_t()|e }}",
}


def short() -> ParrotChatPromptExecutionSettings:
    """New ones, because agents change theirs."""
    return ParrotChatPromptExecutionSettings(max_tokens=4, temperature=0)


class Native:
    @kernel_function
    def now(self) -> str:
        return "noon & after"


@pytest.fixture
def kernel(vllm_url: str) -> Kernel:
    found = kernel_of(vllm_url)
    add(found, "s", "Summarise: {{$input}}", settings=short())
    add(found, "t", "A title of {{$input}}", settings=short())
    found.add_plugin(Native(), "n")
    return found


def check(plans: list[Plan], num_calls: int, num_sets: int = 0, num_plans: int = 1) -> None:
    """Make sure that the runs made the planned calls, and no others."""
    assert background().settle(30)
    reports = [plan.report() for plan in plans]
    told = "\n".join(map(str, reports))
    assert len(reports) == num_plans, told
    for report in reports:
        assert (report.num_missed, report.num_lost, report.num_wasted) == (0, 0, 0), told
        assert report.num_submits == 1, told
    assert sum(report.num_claimed for report in reports) == num_calls, told
    assert sum(report.num_sets for report in reports) == num_sets, told


@pytest.mark.parametrize("is_streaming", [False, True])
@pytest.mark.parametrize("form", TEMPLATES)
async def test_a_prompt_function(kernel: Kernel, form: str, is_streaming: bool) -> None:
    function = add(kernel, "f", TEMPLATES[form], form, settings=short())
    given = arguments(input="bees")
    with watch_plans() as plans:
        if is_streaming:
            assert [item async for item in kernel.invoke_stream(function, given)]
        else:
            assert await kernel.invoke(function, given) is not None
    check(plans, 3, num_sets=1)


async def test_a_text_service(vllm_url: str, kernel: Kernel) -> None:
    kernel.services = {"text": ParrotTextCompletion(host=vllm_url, service_id="text")}
    settings = ParrotTextPromptExecutionSettings(service_id="text", max_tokens=4, temperature=0)
    given = KernelArguments(settings=settings, input="bees")
    for name in ("a", "b"):
        add(kernel, name, "The {{$input}}", settings=settings)
    function = add(kernel, "f", "{{w.a}} & {{w.b}}", settings=settings)
    with watch_plans() as plans:
        assert await kernel.invoke(function, given) is not None
    check(plans, 3)


async def test_a_pipeline(kernel: Kernel) -> None:
    steps = [kernel.get_function("w", name) for name in "sts"]
    with watch_plans() as plans:
        assert await ParrotPipeline(steps).invoke(kernel, arguments(input="bees")) is not None
    check(plans, 3)


async def test_chunks(kernel: Kernel) -> None:
    summarise, title = (kernel.get_function("w", name) for name in "st")
    with watch_plans() as plans:
        assert len(await map_chunks(kernel, summarise, ["a", "b", "a"])) == 3
        await aggregate(kernel, summarise, ["a", "b"], combine=title)
    check(plans, 6, num_plans=2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_orchestration(vllm_url: str, kind: str) -> None:
    members = agents_of(vllm_url, "Write.", "Improve.", arguments=KernelArguments(settings=short()))
    heard = Heard()
    with watch_plans() as plans:
        execute(run(build(PLANNED, kind, members, heard, rounds=3)))
    check(plans, 3 if kind == "group chat" else 2)
    assert set(heard.answers) == {"agent0", "agent1"}


#: Example -> plans and calls.
COUNTS = {
    "nested_chat": (1, 5),
    "grounding": (1, 3),
    "outline_then_chapters": (1, 9),
    "concurrent_agents": (2, 6),
}


@pytest.mark.parametrize("name", COUNTS)
def test_an_example(name: str, vllm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module: Any = importlib.import_module(name)
    make: Callable[..., Callable[[], Awaitable[str]]]
    make = getattr(module, "build_planned", module.build)
    num_plans, num_calls = COUNTS[name]

    async def program() -> None:
        assert isinstance(await make(kernel_of(vllm_url), short())(), str)

    with watch_plans() as plans:
        execute(program())
    check(plans, num_calls, num_plans=num_plans)
