"""Planned chains inside LangGraph: in nodes, in a fan-out, and around a whole graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from parrot_backend.core.nodes import Request
from parrot_backend.core.session import Session
from parrot_integrations.langchain import ChatParrot, as_parrot, watch_plans
from parrot_integrations.planning.background import background
from parrot_integrations.planning.context import current_plan
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e


class State(TypedDict, total=False):
    x: str
    parts: Annotated[list[str], operator.add]
    out: str


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: ScriptedServer) -> Iterator[None]:
    server.requests.clear()
    yield
    assert current_plan.get() is None
    assert background().settle(10)
    server.wait_until_idle()
    server.wait_until_empty()


def ask(server: ScriptedServer, template: str) -> Runnable[Any, Any]:
    chat = ChatParrot(base_url=server.url, temperature=0, max_tokens=6)
    return ChatPromptTemplate.from_template(template) | chat | StrOutputParser()


def looking(server: ScriptedServer, seen: list[Any]) -> Runnable[Any, Any]:
    """A step that notes the sessions that are open while it runs, and stages of their calls."""

    def look(value: Any) -> Any:
        sessions = list(server.service.coordinator.sessions)
        seen.extend((s.app, dict(s.metadata), stages(s)) for s in sessions if not s.is_closed)
        return value

    return RunnableLambda(look)


def stages(session: Session) -> list[str | None]:
    return [node.stage for node in session.graph.nodes.values() if isinstance(node, Request)]


def two_steps(server: ScriptedServer, seen: list[Any]) -> Runnable[Any, Any]:
    return ask(server, "A {x}") | looking(server, seen) | ask(server, "B {x}")


def graph_of(node: Any, **metadata: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("write", node, metadata=metadata or None)
    graph.add_edge(START, "write")
    graph.add_edge("write", END)
    return graph.compile()


@pytest.mark.parametrize("is_function", [False, True])
def test_a_chain_in_a_node_is_one_submit_and_says_where_it_is(
    server: ScriptedServer, is_function: bool
) -> None:
    seen: list[Any] = []
    chain = two_steps(server, seen)
    planned = as_parrot(chain)
    node: Any = (
        RunnableLambda(lambda state: {"x": state["x"]}) | planned | (lambda out: {"out": out})
    )
    if is_function:
        node = lambda state: {"out": planned.invoke({"x": state["x"]})}  # noqa: E731
    config: Any = {"configurable": {"thread_id": "t1"}, "metadata": {"parrot_app": "papers"}}
    found = graph_of(node).invoke({"x": "bees"}, config)
    assert (server.num_submits, server.num_sets) == (1, 1)
    ((app, labels, told),) = seen
    assert app == "papers"
    assert labels["step"] == 1
    assert told == ["write"] * 2
    assert found["out"] == chain.invoke({"x": "bees"})


def test_the_metadata_of_a_node_reaches_its_session(server: ScriptedServer) -> None:
    seen: list[Any] = []
    planned = as_parrot(two_steps(server, seen))
    graph = graph_of(
        lambda state: {"out": planned.invoke(state)}, parrot_stage="draft", colour="red"
    )
    graph.invoke({"x": "bees"})
    ((_, labels, told),) = seen
    assert (told, labels["colour"]) == (["draft"] * 2, "red")


def fan_out(planned: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("part", lambda state: {"parts": [planned.invoke({"x": state["x"]})]})
    graph.add_node("end", lambda state: {"out": "+".join(sorted(state["parts"]))})
    graph.add_conditional_edges(START, lambda state: [Send("part", {"x": c}) for c in state["x"]])
    graph.add_edge("part", "end")
    graph.add_edge("end", END)
    return graph.compile()


def test_each_branch_of_a_fan_out_is_one_submit(server: ScriptedServer) -> None:
    chain = ask(server, "A {x}") | ask(server, "B {x}")
    expected = fan_out(chain).invoke({"x": "abcd"})
    server.requests.clear()
    assert fan_out(as_parrot(chain)).invoke({"x": "abcd"}) == expected
    assert server.num_submits == 4


async def test_a_fan_out_that_is_awaited(server: ScriptedServer) -> None:
    planned = as_parrot(ask(server, "A {x}") | ask(server, "B {x}"))

    async def part(state: Any) -> Any:
        return {"parts": [await planned.ainvoke({"x": state["x"]})]}

    graph = StateGraph(State)
    graph.add_node("part", part)
    graph.add_conditional_edges(START, lambda state: [Send("part", {"x": c}) for c in state["x"]])
    graph.add_edge("part", END)
    found = await graph.compile().ainvoke({"x": "abcd"})
    assert len(found["parts"]) == 4
    assert server.num_submits == 4


def test_around_a_whole_graph_nothing_changes(server: ScriptedServer) -> None:
    chain = ask(server, "A {x}") | ask(server, "B {x}")
    graph = fan_out(chain)
    expected = graph.invoke({"x": "ab"})
    with watch_plans() as plans:
        assert as_parrot(graph).invoke({"x": "ab"}) == expected
    assert plans[0].report().num_planned == 0
    found, expected = list(as_parrot(graph).stream({"x": "ab"})), list(graph.stream({"x": "ab"}))
    # The parts come in any order.
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
