"""A plan in force: what the models ask it, and what they do with its replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

import parrot_integrations as P
from parrot_backend.protocol import VariableView
from parrot_integrations.langchain import ChatParrot, ParrotLLM
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.context import in_force
from parrot_integrations.planning.reply import Direct, Reply, ReplyEvent, ReplyText
from parrot_integrations.settings import ClientSettings
from tests.helpers.fake_parrot import FakeParrot

VIEW = VariableView(id="s.v", name="v", state="ready", value="from the plan")


class Planned:
    """A reply that is there already, or an error."""

    def __init__(self, error: P.ParrotError | None = None) -> None:
        self._error = error

    def result(self) -> VariableView:
        if self._error is not None:
            raise self._error
        return VIEW

    async def aresult(self) -> VariableView:
        return self.result()

    def events(self) -> Generator[ReplyEvent, None, None]:
        yield ReplyText("from the ")
        yield ReplyText("plan")
        yield self.result()

    async def aevents(self) -> AsyncGenerator[ReplyEvent, None]:
        for event in self.events():
            yield event


class Plan:
    """Has one reply for each call that it was told."""

    def __init__(self, *calls: ModelCall, error: P.ParrotError | None = None) -> None:
        self._calls = list(calls)
        self._error = error
        self.endpoints: list[ClientSettings] = []

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        self.endpoints.append(endpoint)
        keys = [(known.frame, known.texts) for known in self._calls]
        if (call.frame, call.texts) not in keys:
            return None
        del self._calls[keys.index((call.frame, call.texts))]
        return Planned(self._error)


CALLS: list[Callable[[Any], str]] = [
    lambda model: model.invoke("q", stop=["."], temperature=0.5),
    lambda model: "".join(
        getattr(c, "content", c) for c in model.stream("q", stop=["."], temperature=0.5)
    ),
    lambda model: model.batch(["q"], stop=["."], temperature=0.5)[0],
]


@pytest.mark.parametrize("ask", CALLS)
def test_a_chat_that_was_planned_is_not_sent(
    chat: ChatParrot, fake: FakeParrot, ask: Callable[[Any], Any]
) -> None:
    plan = Plan(*chat.to_model_calls([HumanMessage("q")], stop=["."], temperature=0.5))
    with in_force(plan):
        found = ask(chat)
        assert getattr(found, "content", found) == "from the plan"
        assert fake.submits == []
        found = ask(chat)
    assert getattr(found, "content", found) == "<q>"
    assert {endpoint.base_url for endpoint in plan.endpoints} == {"http://parrot.test"}


@pytest.mark.parametrize("ask", CALLS)
def test_a_prompt_that_was_planned_is_not_sent(
    llm: ParrotLLM, fake: FakeParrot, ask: Callable[[Any], Any]
) -> None:
    plan = Plan(*llm.to_model_calls("q", stop=["."], temperature=0.5))
    with in_force(plan):
        assert ask(llm) == "from the plan"
        assert fake.submits == []


def test_a_batch_asks_the_plan_around_it(chat: ChatParrot, fake: FakeParrot) -> None:
    with in_force(Plan(*chat.to_model_calls([HumanMessage("b")]))):
        replies = chat.batch(["a", "b", "c"])
    assert [reply.content for reply in replies] == ["<a>", "from the plan", "<c>"]
    assert [len(submit.nodes) for submit in fake.submits] == [2]


def test_another_parameter_is_another_call(chat: ChatParrot, fake: FakeParrot) -> None:
    with in_force(Plan(*chat.to_model_calls([HumanMessage("q")], temperature=0.5))):
        assert chat.invoke("q", temperature=0.6).content == "<q>"
    assert len(fake.submits) == 1


def test_a_failure_of_a_planned_call_is_raised_and_a_second_try_is_sent(
    chat: ChatParrot, fake: FakeParrot
) -> None:
    error = P.ValueFailed("engine_lost", "gone", "v", ("v",))
    with in_force(Plan(*chat.to_model_calls([HumanMessage("q")]), error=error)):
        with pytest.raises(P.ValueFailed, match="engine_lost"):
            chat.invoke("q")
        assert chat.invoke("q").content == "<q>"
    with in_force(Plan(*chat.to_model_calls([HumanMessage("q")]), error=error)):
        retrying = chat.with_retry(
            retry_if_exception_type=(P.ValueFailed,), wait_exponential_jitter=False
        )
        assert retrying.invoke("q").content == "<q>"


def test_markers_pass_through_a_call(chat: ChatParrot) -> None:
    (call,) = chat.to_model_calls([HumanMessage("a \ue000x\ue001 b"), HumanMessage("{{input:y}}")])
    assert call.texts == ("a \ue000x\ue001 b", "{{input:y}}")
