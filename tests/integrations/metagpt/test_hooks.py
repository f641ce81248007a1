"""Putting the provider into MetaGPT, and taking it out again: in any order, and only once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import metagpt.roles
import pytest
from metagpt.configs.llm_config import LLMType
from metagpt.provider.llm_provider_registry import LLM_REGISTRY
from metagpt.provider.openai_api import OpenAILLM
from metagpt.team import Team
from metagpt.utils.common import CodeParser

from parrot_integrations.metagpt import ParrotLLM, install


def state() -> list[object]:
    """Return all that ``install`` changes."""
    wrapped = [
        (Team, "run"),
        (Team, "run_project"),
        (metagpt.roles.Role, "run"),
        (CodeParser, "parse_code"),
    ]
    return [dict(LLM_REGISTRY.providers), *(owner.__dict__[name] for owner, name in wrapped)]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = state()
    assert LLM_REGISTRY.get_provider(LLMType.OPENAI) is OpenAILLM
    yield
    assert state() == before


def in_force(key: LLMType = LLMType.OPENAI) -> dict[str, object]:
    provider = LLM_REGISTRY.get_provider(key)
    assert issubclass(provider, ParrotLLM)
    return dict(provider.extra)


def test_installing_is_taken_back() -> None:
    uninstall = install(extra={"top_k": 1})
    assert in_force() == {"top_k": 1}
    uninstall()
    assert LLM_REGISTRY.get_provider(LLMType.OPENAI) is OpenAILLM


def test_the_last_installation_is_in_force_and_wraps_nothing_twice() -> None:
    first = install(extra={"top_k": 1})
    wrapped = state()[1:]
    second = install(extra={"top_k": 2})
    assert in_force() == {"top_k": 2}
    assert state()[1:] == wrapped
    second()
    assert in_force() == {"top_k": 1}
    assert state()[1:] == wrapped
    first()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_installations_are_taken_back_in_any_order(order: tuple[int, ...]) -> None:
    undo = [install(extra={"top_k": number + 1}) for number in range(3)]
    for step, number in enumerate(order):
        left = set(range(3)) - set(order[:step])
        assert in_force() == {"top_k": max(left) + 1}
        undo[number]()


def test_taking_back_twice_leaves_others_alone() -> None:
    first = install(extra={"top_k": 1})
    first()
    second = install(extra={"top_k": 2})
    first()
    assert in_force() == {"top_k": 2}
    second()


def test_installations_of_several_keys() -> None:
    first, second = install(extra={"top_k": 1}), install(key=LLMType.YI, extra={"top_k": 2})
    assert (in_force(), in_force(LLMType.YI)) == ({"top_k": 1}, {"top_k": 2})
    first()
    assert LLM_REGISTRY.get_provider(LLMType.OPENAI) is OpenAILLM
    assert in_force(LLMType.YI) == {"top_k": 2}
    second()


def test_a_key_that_had_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LLM_REGISTRY.providers, LLMType.YI)
    uninstall = install(key=LLMType.YI)
    assert in_force(LLMType.YI) == {}
    uninstall()
    assert LLMType.YI not in LLM_REGISTRY.providers
    monkeypatch.undo()
