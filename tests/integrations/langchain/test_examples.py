"""The examples: planned, each gives what it gives call by call, and takes one submit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable

from parrot_integrations.langchain import ChatParrot, as_parrot, watch_plans
from parrot_integrations.planning.background import background
from tests.integrations.langchain.scripted_server import scripted_server

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


def planned_form(module: object, llm: ChatParrot, chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    if module.__name__ == "langgraph_agent":  # type: ignore[attr-defined]
        return module.build(llm, planned=True)  # type: ignore[attr-defined,no-any-return]
    return as_parrot(chain)


def test_every_example_is_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"side_by_side"}
    assert names == set(COUNTS)
