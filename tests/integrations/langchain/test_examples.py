"""The examples: planned, each gives what it gives call by call, and takes one submit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable

from parrot_integrations.langchain import ChatParrot, as_parrot, watch_plans
from parrot_integrations.planning.background import background
from tests.helpers.scripted_server import scripted_server

EXAMPLES = Path(__file__).parents[3] / "examples" / "langchain"

#: Example -> submits call by call, submits planned, values set.
COUNTS = {
    "map_reduce_summary": (2, 1, 0),
    "refine_summary": (8, 1, 0),
    "multi_query_rag": (5, 1, 1),
    "plan_and_expand": (3, 1, 0),
    "langgraph_agent": (4, 3, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_an_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(name)
    value = module.example_input()
    with scripted_server() as server, watch_plans() as plans:
        llm = ChatParrot(base_url=server.url, temperature=0, max_tokens=24)
        chain = module.build(llm)
        expected = chain.invoke(value)
        plain = server.num_submits
        server.requests.clear()
        planned = planned_form(module, llm, chain)
        assert planned.invoke(value) == expected
        assert background().settle(5)
        counted = (plain, server.num_submits, server.num_sets)
        server.wait_until_idle()
    assert counted == COUNTS[name]
    assert all(plan.report().num_wasted == 0 for plan in plans)


@pytest.mark.vllm
@pytest.mark.e2e
@pytest.mark.parametrize("name", COUNTS)
def test_an_example_on_vllm(name: str, vllm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module(name)
    llm = ChatParrot(base_url=vllm_url, temperature=0, max_tokens=48)
    with watch_plans() as plans:
        assert planned_form(module, llm, module.build(llm)).invoke(module.example_input())
    assert background().settle(5)
    reports = [plan.report() for plan in plans]
    assert sum(report.num_claimed for report in reports) >= 2
    # Whatever the model says, the server and its client have followed the same way.
    assert all((r.num_wasted, r.num_missed, r.num_lost) == (0, 0, 0) for r in reports)


def planned_form(module: object, llm: ChatParrot, chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    if module.__name__ == "langgraph_agent":  # type: ignore[attr-defined]
        return module.build(llm, planned=True)  # type: ignore[attr-defined,no-any-return]
    return as_parrot(chain)


def test_every_example_is_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"side_by_side"}
    assert names == set(COUNTS)
