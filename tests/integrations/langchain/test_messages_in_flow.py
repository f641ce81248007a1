"""Messages of models that go through choices and repetitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch

from parrot_integrations.langchain import (
    ChatParrot,
    as_parrot,
    if_contains,
    repeat_until,
    watch_plans,
)
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e

Chain = Runnable[Any, Any]
Ask = Callable[[str], Chain]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def ask(server: ScriptedServer) -> Ask:
    chat = ChatParrot(base_url=server.url, temperature=0, max_tokens=6)
    return lambda template: ChatPromptTemplate.from_template(template) | chat


def way(yes: Chain, no: Chain) -> Chain:
    return RunnableBranch((if_contains("zzz"), yes), no)


def test_a_message_is_a_message_after_a_branch(ask: Ask) -> None:
    """What puts it into a text without a parser puts its representation there."""
    out = StrOutputParser()
    ways = ask("Q {x}") | out | way(ask("A {x}"), ask("B {x}"))
    parsed, whole = ways | out | ask("C {x}") | out, ways
    with watch_plans() as plans:
        assert as_parrot(parsed).invoke("bees") == parsed.invoke("bees")
        assert as_parrot(whole).invoke("bees").text == whole.invoke("bees").text
    assert [plan.report().num_missed for plan in plans] == [0, 0]
    report = str(as_parrot(ways | ask("C {x}")).plan("bees").report())
    assert "add StrOutputParser()" in report


def test_ways_that_end_in_a_text_and_in_a_message_are_left_to_the_client(ask: Ask) -> None:
    out = StrOutputParser()
    ways = ask("Q {x}") | out | way(ask("A {x}"), ask("B {x}") | out)
    assert "StrOutputParser() after each model" in str(as_parrot(ways).plan("bees").report())
    assert as_parrot(ways).invoke("bees") == ways.invoke("bees")


def test_a_loop_begins_with_the_text_of_a_message(ask: Ask) -> None:
    loop = repeat_until(ask("Improve {x}"), if_contains("zzz"), max_rounds=2)
    assert loop.invoke(HumanMessage("bees")) == loop.invoke("bees")
    chain = ask("Write {x}") | loop
    with watch_plans() as plans:
        assert as_parrot(chain).invoke("bees") == chain.invoke("bees")
    assert plans[0].report().num_missed == 0
