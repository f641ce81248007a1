"""Models and wrappers take what other integrations take, and say at once what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from parrot_integrations.langchain import ChatParrot, ParrotLLM, as_parrot, if_contains
from parrot_integrations.langchain.annotations import read_metadata
from parrot_integrations.langchain.flow import repeat_until
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.plan import Plan, PlanTerms
from parrot_integrations.planning.symbols import Markers, Symbol, without_markers

MODELS: tuple[type[Any], ...] = (ChatParrot, ParrotLLM)


@pytest.mark.parametrize("model", MODELS)
def test_fields_have_the_names_that_people_know(model: Any) -> None:
    found = model(
        base_url="http://h", model_name="m", request_timeout=3, max_completion_tokens=5, stop="END"
    )
    assert (found.model, found.timeout, found.max_tokens) == ("m", 3.0, 5)
    assert found.stop == ["END"]
    assert model(base_url="http://h", model="m", stop=["a"]).stop == ["a"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "bad", [{"max_tokens": 0}, {"timeout": 0}, {"temperature": -1}, {"temperature": 2.5}]
)
def test_values_out_of_range_are_refused_at_once(model: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        model(base_url="http://h", **bad)


@pytest.mark.parametrize("address", ["http://h", "http://h/", "http://h/v1", "http://h/v1/"])
def test_an_address_may_have_the_version_in_it(address: str) -> None:
    assert ChatParrot(base_url=address).settings.base_url == "http://h"


def test_labels_are_numbers_that_json_has() -> None:
    found = read_metadata({"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert found.metadata == {"c": 1.5}


def test_what_langchain_makes_a_runnable_of_can_be_planned() -> None:
    mapping: Any = {"a": lambda x: x + 1, "b": RunnableLambda(str)}
    assert as_parrot(mapping).invoke(1) == {"a": 2, "b": "1"}
    assert as_parrot(lambda x: x + 1).invoke(1) == 2
    loop = repeat_until(
        {"text": lambda state: state["text"] + "!"},
        if_contains("!!", key="text"),
        max_rounds=4,
        result="text",
    )
    assert loop.invoke({"text": "a"}) == "a!!"


def test_a_report_tells_nothing_of_a_plan_that_has_not_run() -> None:
    plan = Plan(PlanBuilder().program(), None, PlanTerms())
    assert str(plan.report()) == "planned 0 calls; nothing has run yet"


def test_a_step_that_is_cut_is_named_once_and_without_markers() -> None:
    builder = PlanBuilder()
    marker = str.__str__(Markers().mark(Symbol("llm-out")))
    builder.cut("step", f"no {marker} and {marker[:20]}")
    builder.late("step", f"no {marker} and {marker[:20]}")
    assert without_markers("plain") == "plain"
    lines = str(Plan(builder.program(), None, PlanTerms()).report()).splitlines()
    assert lines[1:] == ["  cut         step: no ... and ..."]
