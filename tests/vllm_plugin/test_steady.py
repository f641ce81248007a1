"""Steps without a plan: there are many, and nothing is computed otherwise for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.vllm_plugin import steady
from parrot_backend.vllm_plugin.options import PluginOptions
from tests.core.hypothesis_settings import examples
from tests.vllm_plugin.fake_core import FakeCore, text

LATENCY: dict[str, Any] = {"class": "latency"}
GROUP: dict[str, Any] = {"class": "task_group", "group": "g"}
THROUGHPUT: dict[str, Any] = {"class": "throughput"}


def count_plans(core: FakeCore, num_steps: int) -> int:
    """Return how many of the next steps are planned."""
    plans, before_step = list[float](), core.policy.before_step

    def counting(now_s: float) -> Any:
        plans.append(now_s)
        return before_step(now_s)

    core.policy.before_step = counting  # type: ignore[method-assign]
    core.run(num_steps)
    core.policy.before_step = before_step  # type: ignore[method-assign]
    return len(plans)


def decoding(*hints: object, **given_: Any) -> FakeCore:
    """Return an engine whose requests decode for long."""
    core = FakeCore(**given_)
    for number, each in enumerate(hints):
        core.add(text(number, 5), each, max_tokens=100)
    core.run(3)
    return core


@pytest.mark.parametrize(
    "hints",
    [[LATENCY], [LATENCY] * 3, [THROUGHPUT] * 2, [LATENCY] * 8, [GROUP, LATENCY, GROUP, None]],
)
def test_only_some_steps_of_decodes_are_planned(hints: list[object]) -> None:
    assert count_plans(decoding(*hints), 4 * (steady.MAX_STEPS + 1)) == 4


@pytest.mark.parametrize("hints", [[LATENCY, THROUGHPUT], [GROUP, {**LATENCY, "tpot_s": 0.1}]])
def test_unlike_requests_are_planned_for_each_step(hints: list[object]) -> None:
    assert count_plans(decoding(*hints), 16) == 16


def test_who_waits_without_room_is_planned_for_each_step() -> None:
    assert count_plans(decoding(LATENCY, LATENCY, LATENCY, slots=2), 16) == 16


@pytest.mark.parametrize("hints", [LATENCY, THROUGHPUT, None])
def test_a_newcomer_is_planned_for_at_once(hints: object) -> None:
    core = decoding(LATENCY)
    core.run(2)
    core.add(text(9, 5), hints)
    assert count_plans(core, 1) == 1


def test_changed_hints_are_planned_for_at_once() -> None:
    core = decoding({**LATENCY, "name": "a"}, LATENCY)
    assert count_plans(core, 2) < 2
    core.apply(["hints", "a", THROUGHPUT])
    assert count_plans(core, 8) == 8


def test_a_full_cache_is_planned_for_each_step() -> None:
    core = decoding(LATENCY, LATENCY, num_blocks=40)
    blocks = core.pool.allocate(core.pool.num_free() - 1)
    assert blocks
    assert count_plans(core, 3) == 3


REQUESTS = st.tuples(
    st.sampled_from([LATENCY, THROUGHPUT, {"class": "task_group", "group": "g"}, None]),
    st.integers(1, 40),  # tokens of the prompt
    st.integers(1, 60),  # of the output
    st.integers(0, 20),  # steps before it comes
)


@examples(60)
@given(st.lists(REQUESTS, min_size=1, max_size=8), st.integers(24, 60))
def test_nothing_is_computed_otherwise(
    requests: list[tuple[Any, int, int, int]], num_blocks: int
) -> None:
    def run(max_steps: int) -> list[list[tuple[tuple[int, ...], int]]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steady, "MAX_STEPS", max_steps)
            options = replace(PluginOptions(), pace=False)  # what it learns depends on the plans
            core = FakeCore(options, num_blocks=num_blocks, slots=3)
            for number, (hints, prompt, output, delay) in enumerate(requests):
                core.run(delay)
                core.add(text(number, prompt), hints, max_tokens=output)
            core.drain()
            core.check()
        return [[(r.prompt, n) for r, n in step.computed.items()] for step in core.steps]

    assert run(steady.MAX_STEPS) == run(0)
