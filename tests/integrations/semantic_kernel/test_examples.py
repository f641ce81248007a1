"""The examples: planned, each gives what it gives call by call, and takes one submit a plan."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from semantic_kernel import Kernel
from semantic_kernel.filters import FilterTypes

from parrot_integrations.planning.background import background
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotPlanFilter,
    watch_plans,
)
from tests.helpers.scripted_server import ScriptedServer, scripted_server

EXAMPLES = Path(__file__).parents[3] / "examples" / "semantic_kernel"

#: Example -> submits call by call, submits planned.
COUNTS = {
    "nested_chat": (5, 1),
    "grounding": (3, 1),
    "outline_then_chapters": (9, 1),
    "concurrent_agents": (6, 2),
}

Program = Callable[[], Awaitable[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def programs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Program, Program]]:
    """Returns both forms of an example on a server."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(request.getfixturevalue("name"))

    def make(url: str) -> tuple[Program, Program]:
        service = ParrotChatCompletion(host=url)
        settings = ParrotChatPromptExecutionSettings(temperature=0, max_tokens=24)
        kernel = Kernel(services=service)
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())
        build_planned = getattr(module, "build_planned", module.build)
        return module.build(Kernel(services=service), settings), build_planned(kernel, settings)

    return make


@pytest.mark.parametrize("name", COUNTS)
async def test_an_example(
    name: str, server: ScriptedServer, programs: Callable[[str], tuple[Program, Program]]
) -> None:
    plain, planned = programs(server.url)
    server.requests.clear()
    expected = await plain()
    num_plain = server.num_submits
    server.requests.clear()
    with watch_plans() as plans:
        assert await planned() == expected
    assert background().settle(5)
    assert (num_plain, server.num_submits) == COUNTS[name]
    assert server.num_sets == 0
    reports = [plan.report() for plan in plans]
    assert sum(report.num_claimed for report in reports) == num_plain
    assert all((r.num_wasted, r.num_missed, r.num_lost) == (0, 0, 0) for r in reports)
    server.wait_until_idle()


def test_every_example_is_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"side_by_side"}
    assert names == set(COUNTS)
