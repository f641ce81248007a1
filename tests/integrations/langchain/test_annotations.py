"""What the server is told about calls: scopes, configs, LangGraph."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

import parrot_integrations as P
from parrot_integrations.langchain import ChatParrot, ParrotLLM, parrot_session
from parrot_integrations.langchain.annotations import (
    current_annotation,
    read_metadata,
)
from parrot_integrations.planning.annotations import Annotation, to_criteria
from parrot_integrations.planning.submits import Terms
from tests.helpers.fake_parrot import FakeParrot

CONFIG: Any = {
    "metadata": {
        "parrot_app": "reports",
        "parrot_session": "s",
        "parrot_stage": "draft",
        "parrot_perf": "throughput",
        "user": 7,
        "list": [1],
        "ls_provider": "x",
    }
}


def test_metadata_is_read_without_noise() -> None:
    assert read_metadata(CONFIG["metadata"]) == Annotation(
        app="reports", session="s", stage="draft", perf="throughput", metadata={"user": 7}
    )


def test_langgraph_says_thread_node_step_and_path() -> None:
    found = read_metadata(
        {
            "thread_id": 42,
            "langgraph_node": "write",
            "langgraph_step": 3,
            "langgraph_path": ("__pregel_push", 0, False),
            "langgraph_triggers": ("__pregel_push",),
            "langgraph_checkpoint_ns": "write:1",
            "checkpoint_ns": "write:1",
        }
    )
    assert (found.session, found.stage) == ("42", "write")
    assert found.metadata == {"step": 3, "path": "__pregel_push/0/False"}


def test_an_inner_scope_adds_to_an_outer_one() -> None:
    with parrot_session(app="a", session="s", metadata={"x": 1, "y": 1}):
        with parrot_session(stage="t", session="r", metadata={"y": 2}):
            inner = current_annotation({})
        outer = current_annotation({})
    assert inner == Annotation("a", "r", "t", None, {"x": 1, "y": 2})
    assert outer == Annotation("a", "s", None, None, {"x": 1, "y": 1})
    assert current_annotation({}) == Annotation()


def test_there_are_not_more_labels_than_the_server_takes() -> None:
    labels = Annotation(session="s", metadata={str(i): i for i in range(100)}).labels()
    assert len(labels) == 64
    assert labels["session"] == "s"


@pytest.mark.parametrize(
    ("perf", "criteria"),
    [
        (None, P.UNSTATED),
        ("latency", P.LATENCY),
        ("throughput", P.THROUGHPUT),
        (P.Criteria(ttft_s=1), P.Criteria(ttft_s=1)),
    ],
)
def test_perf(perf: Any, criteria: P.Criteria) -> None:
    assert to_criteria(perf) == criteria


def test_a_perf_that_is_not_known_is_an_error(chat: ChatParrot) -> None:
    with pytest.raises(ValueError, match="perf is 'latency' or 'throughput' or"):
        chat.invoke("a", perf="fast")


def check(fake: FakeParrot) -> None:
    submit = fake.submits[-1]
    assert submit.app == "reports"
    assert submit.metadata == {"session": "s", "stage": "draft", "user": 7}
    assert submit.outputs[0].criteria == P.THROUGHPUT


def test_every_way_to_call_passes_the_config_on(
    chat: ChatParrot, llm: ParrotLLM, fake: FakeParrot
) -> None:
    chat.invoke("a", CONFIG)
    check(fake)
    list(chat.stream("a", CONFIG))
    check(fake)
    chat.batch(["a", "b"], CONFIG)
    check(fake)
    (chat | RunnableLambda(lambda m: m)).invoke("a", CONFIG)
    check(fake)
    list((RunnableLambda(lambda m: m) | chat).stream("a", CONFIG))
    check(fake)
    chat.model_copy(update={"streaming": True}).invoke("a", CONFIG)
    check(fake)
    llm.invoke("a", CONFIG)
    check(fake)
    list(llm.stream("a", CONFIG))
    check(fake)


async def test_every_awaited_way_to_call_passes_the_config_on(
    chat: ChatParrot, fake: FakeParrot
) -> None:
    await chat.ainvoke("a", CONFIG)
    check(fake)
    assert [c async for c in chat.astream("a", CONFIG)]
    check(fake)
    await chat.abatch(["a", "b"], CONFIG)
    check(fake)
    assert [e async for e in chat.astream_events("a", CONFIG, version="v2")]
    check(fake)


def test_the_closest_wish_wins(client: P.ParrotClient, fake: FakeParrot) -> None:
    chat = ChatParrot(client=client, app="model", perf="throughput")
    chat.invoke("a")
    with parrot_session(app="scope", perf="latency"):
        chat.invoke("a")
        chat.invoke("a", {"metadata": {"parrot_app": "config"}})
        chat.invoke("a", {"metadata": {"parrot_app": "config"}}, app="call", perf=P.THROUGHPUT)
    assert [submit.app for submit in fake.submits] == ["model", "scope", "config", "call"]
    kinds = [s.outputs[0].criteria.kind for s in fake.submits if s.outputs[0].criteria]
    assert kinds == ["throughput", "latency", "latency", "throughput"]


def test_a_planner_learns_how_a_call_would_be_sent(client: P.ParrotClient) -> None:
    chat = ChatParrot(client=client, app="model", timeout=3)
    with parrot_session(stage="a"):
        terms = chat.to_terms({"parrot_perf": "throughput", "user": 7}, timeout=2)
    assert terms == Terms("model", {"stage": "a", "user": 7}, P.THROUGHPUT, 2)


def test_a_stream_does_not_leak_its_config(chat: ChatParrot, fake: FakeParrot) -> None:
    stream = chat.stream("a b", CONFIG)
    next(stream)
    list(chat.stream("other"))
    assert fake.submits[-1].metadata == {}
    list(stream)


class State(TypedDict, total=False):
    topic: str
    text: str


def test_a_graph_of_langgraph_needs_no_change(chat: ChatParrot, fake: FakeParrot) -> None:
    def outline(state: State) -> State:
        return {"text": str(chat.invoke(state["topic"]).content)}

    def write(state: State) -> State:
        return {"text": "".join(str(chunk.content) for chunk in chat.stream(state["text"]))}

    graph = StateGraph(State)
    graph.add_node("outline", outline)
    graph.add_node("write", write, metadata={"parrot_stage": "final"})
    graph.add_edge(START, "outline")
    graph.add_edge("outline", "write")
    graph.add_edge("write", END)
    app = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t1"}, "metadata": {"parrot_app": "essay"}}
    assert app.invoke({"topic": "bees"}, config)["text"] == "<<bees>>"
    first, second = fake.submits
    assert (first.app, second.app) == ("essay", "essay")
    assert (first.metadata["session"], second.metadata["session"]) == ("t1", "t1")
    assert (first.metadata["stage"], second.metadata["stage"]) == ("outline", "final")
    assert (first.metadata["step"], second.metadata["step"]) == (1, 2)
    assert not [name for name in second.metadata if name.startswith(("ls_", "langgraph_"))]


def test_siblings_of_a_map_differ_in_their_path(chat: ChatParrot, fake: FakeParrot) -> None:
    def summarise(state: State) -> State:
        chat.invoke(state["topic"])
        return {}

    def spread(_state: State) -> list[Send]:
        return [Send("summarise", {"topic": topic}) for topic in "abc"]

    graph = StateGraph(State)
    graph.add_node("summarise", summarise)
    graph.add_conditional_edges(START, spread, ["summarise"])
    graph.compile().invoke({"topic": "x"})
    assert {submit.metadata["step"] for submit in fake.submits} == {1}
    assert {submit.metadata["stage"] for submit in fake.submits} == {"summarise"}
    assert len({submit.metadata["path"] for submit in fake.submits}) == 3
