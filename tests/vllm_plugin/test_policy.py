"""The policy as a whole, on a model of vLLM's scheduler."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.step_time import StepWork
from parrot_backend.vllm_plugin.hints import RequestClass
from parrot_backend.vllm_plugin.options import PluginOptions
from tests.core.hypothesis_settings import examples
from tests.vllm_plugin.fake_core import (
    BLOCK,
    STEP_TIME,
    FakeCore,
    FakeRequest,
    Step,
    text,
)

Raw = dict[str, Any]

LATENCY: Raw = {"class": "latency"}
GROUP: Raw = {"class": "task_group"}
THROUGHPUT: Raw = {"class": "throughput"}
FILL: Raw = {"class": "fill"}


def begin_order(core: FakeCore, requests: list[FakeRequest]) -> list[int]:
    """Return in which order requests begin."""
    begun = [request for step in core.drain() for request in step.begun]
    return [requests.index(request) for request in begun if request in requests]


# --- order ----------------------------------------------------------------------------------------

#: Case -> hints and ages of requests that come at once, and the order in which they begin.
ORDERS: dict[str, tuple[list[tuple[Raw | None, float]], list[int]]] = {
    "class": ([(FILL, 0), (THROUGHPUT, 0), (GROUP, 0), (LATENCY, 0)], [3, 2, 1, 0]),
    "no hints count as a task group": (
        [(THROUGHPUT, 0), (None, 0), (LATENCY, 0)],
        [2, 1, 0],
    ),
    "arrival among equals with and without hints": (
        [(GROUP, 1), (None, 3), (GROUP, 2)],
        [1, 2, 0],
    ),
    "members of a task group go together": (
        [({**GROUP, "group": "a"}, 3), ({**GROUP, "group": "b"}, 2), ({**GROUP, "group": "a"}, 1)],
        [0, 2, 1],
    ),
    "who waited too long goes first": ([(LATENCY, 0), (THROUGHPUT, 31)], [1, 0]),
    "even before others without hints": ([(LATENCY, 0), (GROUP, 0), (None, 31)], [2, 0, 1]),
    "the first of those who waited too long": (
        [(THROUGHPUT, 32), (None, 33), (LATENCY, 31), (LATENCY, 0), (None, 31)],
        [1, 0, 2, 4, 3],
    ),
    "fill waits behind those without hints": ([(FILL, 99), (None, 0)], [1, 0]),
    "but not fill": ([(LATENCY, 0), (FILL, 31)], [0, 1]),
    "earliest deadline": ([({"slack_s": 9}, 0), ({"slack_s": 2}, 0), (None, 0)], [2, 1, 0]),
    "longest path": ([({"path_length": 1}, 0), ({"path_length": 5}, 0)], [1, 0]),
}


@pytest.mark.parametrize("case", ORDERS)
def test_requests_begin_in_the_order_of_their_hints(case: str) -> None:
    given_, expected = ORDERS[case]
    core = FakeCore(slots=1)
    requests = [
        core.add(text(number, 9), hints, age_s=age_s)
        for number, (hints, age_s) in enumerate(given_)
    ]
    assert begin_order(core, requests) == expected


def test_without_order_arrival_decides() -> None:
    core = FakeCore(PluginOptions(order=False), slots=1)
    hints = [FILL, THROUGHPUT, None, LATENCY, GROUP, None]
    requests = [core.add(text(n, 9), each, age_s=9.0 - n) for n, each in enumerate(hints)]
    assert begin_order(core, requests) == [1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("gang", [True, False])
def test_the_members_of_a_task_group_begin_together(gang: bool) -> None:
    core = FakeCore(PluginOptions(gang=gang), slots=4)
    hints = [{**GROUP, "group": "ab"[n % 2]} for n in range(8)]
    requests = [core.add(text(n, 9), each, age_s=9.0 - n) for n, each in enumerate(hints)]
    begun = core.step().begun
    expected = requests[::2] if gang else requests[:4]
    assert begun == expected


def test_changed_hints_of_a_waiting_request_move_it() -> None:
    core = FakeCore(slots=1)
    core.add(text(0, 9), LATENCY)
    core.step()
    names = ["a", "b", "c"]
    requests = [core.add(text(n, 9), {"name": name}) for n, name in enumerate(names, 1)]
    core.apply(["hints", "c", LATENCY], ["hints", "a", FILL], ["hints", "unknown", LATENCY])
    assert begin_order(core, requests) == [2, 1, 0]


def test_changed_hints_of_a_running_request_count() -> None:
    """It is made throughput work, and is preempted for the one that waits."""
    core = FakeCore(slots=1)
    first = core.add(text(0, 9), {**LATENCY, "name": "a"}, max_tokens=20)
    core.run(2)
    second = core.add(text(1, 9), LATENCY)
    assert core.step().preempted == []
    core.apply(["hints", "a", THROUGHPUT])
    step = core.step()
    assert step.preempted == [first]
    assert step.begun == [second]


@pytest.mark.parametrize("raw", [{"name": "b"}, {"class": "fill", "name": ""}, "no dict", {"x": 1}])
def test_a_request_keeps_its_name(raw: object) -> None:
    core = FakeCore()
    core.add(text(0, 9), {"name": "a"})
    core.apply(["hints", "a", raw])
    core.drain()
    assert core.call("state")["named"] == 0


def test_a_name_goes_to_the_request_that_came_last() -> None:
    core = FakeCore(slots=1)
    first = core.add(text(0, 9), {"name": "a"}, max_tokens=1)
    second = core.add(text(1, 9), {"name": "a"})
    core.step()
    assert first.is_complete
    core.apply(["hints", "a", LATENCY])
    assert second.request_class is RequestClass.LATENCY
    core.drain()
    assert core.call("state")["named"] == 0


@pytest.mark.parametrize(("load", "late"), [(None, THROUGHPUT), (LATENCY, None)])
def test_age_counts_between_requests_with_and_without_hints(
    load: Raw | None, late: Raw | None
) -> None:
    core = FakeCore(PluginOptions(max_wait_s=0.5), slots=2)
    for number in range(3):
        core.add(text(number, 9), load)
    request = core.add(text(99, 9), late)
    for number in range(200):
        if len(core.unfinished) < 6:
            core.add(text(number, 9), load)
        core.step()
    assert request.is_complete


def test_age_of_a_request_without_hints_counts_from_its_last_wait() -> None:
    core = FakeCore(PluginOptions(max_wait_s=0.2), num_blocks=30)
    core.add(text(0, 40), LATENCY, max_tokens=70)
    other = core.add(text(1, 20), max_tokens=60)
    while not other.num_preemptions:
        core.step()
    urgent = core.add(text(2, 9), LATENCY)
    core.run(2)
    assert urgent.begun_s is not None


def test_nothing_is_kept_of_requests_that_ended() -> None:
    core = FakeCore(PluginOptions(max_wait_s=0.1), slots=1)
    core.add(text(0, 9), LATENCY, max_tokens=40)
    hints: list[Raw | None] = [None, THROUGHPUT, {**GROUP, "name": "a"}, {"after": "a"}]
    requests = [weakref.ref(core.add(text(n, 9), each)) for n, each in enumerate(hints, 1)]
    core.run(5)
    core.add(text(8, 9), THROUGHPUT)
    core.drain()
    core.add(text(9, 9), LATENCY)
    core.drain()
    core.steps.clear()
    gc.collect()
    assert [request() for request in requests] == [None] * 4


# --- pacing ---------------------------------------------------------------------------------------


def latency_decodes(step: Step) -> list[FakeRequest]:
    return [
        request
        for request, tokens in step.computed.items()
        if tokens == 1 and request.request_class is RequestClass.LATENCY
    ]


def alone_s(step: Step) -> float:
    """Return how long a step would take with its latency-sensitive decodes alone."""
    return STEP_TIME.predict_s(sum(map(_decode, latency_decodes(step)), StepWork()))


def _decode(request: FakeRequest) -> StepWork:
    return StepWork.decode(request.context_tokens)


#: A prefill chunk that is let in regardless, and what the fit of the step time may be off by.
_LEAST_CHUNK_S = 32 * STEP_TIME.per_prefill_token_s
_FIT_S = 2e-4


@pytest.mark.parametrize(("slowdown", "tpot_s"), [(2.0, None), (1.2, None), (9.0, 0.016)])
def test_steps_keep_the_time_per_token(slowdown: float, tpot_s: float | None) -> None:
    core = FakeCore(PluginOptions(slowdown=slowdown, max_hold_s=0.5), slots=16, is_trained=True)
    hints = LATENCY if tpot_s is None else {**LATENCY, "tpot_s": tpot_s}
    core.add(text(0, 8), hints, max_tokens=400)
    core.run(3)
    num_over, others = 0, list[FakeRequest]()
    for number in range(300):
        if number % 10 == 0:
            others.append(core.add(text(number + 1, 30 + number), THROUGHPUT, max_tokens=5))
        step = core.step()
        target_s = slowdown * alone_s(step) if tpot_s is None else tpot_s
        assert latency_decodes(step)
        assert step.elapsed_s <= target_s + _LEAST_CHUNK_S + STEP_TIME.per_decode_s + _FIT_S
        num_over += step.elapsed_s > target_s + _FIT_S
    # One is let in regardless after each half of a second, and prefill in every second step.
    assert num_over <= 40
    assert any(request.is_complete for request in others)


def test_without_pacing_steps_become_longer() -> None:
    core = FakeCore(PluginOptions(pace=False), is_trained=True)
    core.add(text(0, 8), LATENCY, max_tokens=50)
    core.run(3)
    core.add(text(1, 300), THROUGHPUT)
    step = core.step()
    assert sum(step.computed.values()) == core.max_step_tokens


def test_the_limit_ends_with_the_last_latency_sensitive_request() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0), is_trained=True)
    others = [core.add(text(n, 9), THROUGHPUT, max_tokens=90) for n in range(3)]
    core.run(2)
    urgent = core.add(text(9, 9), LATENCY, max_tokens=20)
    core.run(5)
    assert set(core.steps[-1].held) == set(others)
    core.abort(urgent)
    core.add(text(10, 400), THROUGHPUT)
    assert sum(core.step().computed.values()) == core.max_step_tokens
    assert core.steps[-1].held == []
    assert all(request.held_since_s is None for request in others)


def test_a_request_without_hints_is_no_longer_marked_as_held() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0), is_trained=True)
    other = core.add(text(0, 9), None, max_tokens=90)
    core.run(2)
    urgent = core.add(text(9, 9), {**LATENCY, "tpot_s": 1e-4}, max_tokens=20)
    core.run(3)
    assert core.steps[-1].held == [other]
    core.abort(urgent)
    core.run(3)
    assert other.held_since_s is None


@pytest.mark.parametrize("is_trained", [False, True])
def test_throughput_work_ends_beside_continuous_latency_work(is_trained: bool) -> None:
    options = PluginOptions(slowdown=1.0, max_hold_s=0.3, max_wait_s=1.0)
    core = FakeCore(options, slots=4, is_trained=is_trained)
    others = [core.add(text(n, 90), hints) for n, hints in enumerate([THROUGHPUT, GROUP, None])]
    for number in range(1500):
        if len(core.running) + len(core.policy.waiting) < 4:
            core.add(text(number + 9, 40), LATENCY, max_tokens=8)
        core.step()
        core.check()
    assert all(request.is_complete for request in others)


def test_what_a_cached_prompt_leaves_of_a_step_is_not_for_others() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0), is_trained=True)
    core.add(text(0, 40), LATENCY, max_tokens=60)
    core.run(2)
    urgent = core.add(text(0, 42), LATENCY)
    other = core.add(text(1, 20), THROUGHPUT)
    step = core.step()
    assert step.begun == [urgent]
    assert urgent.cached_tokens == 40
    core.drain()
    assert other.is_complete


@pytest.mark.parametrize("hints", [THROUGHPUT, None])
def test_an_old_request_begins_beside_a_stream_of_prompts(hints: Raw | None) -> None:
    core = FakeCore(PluginOptions(max_wait_s=0.5), num_blocks=1000, is_trained=True)
    core.add(text(0, 9), LATENCY, max_tokens=600)
    core.run(2)
    other = core.add(text(1, 20), hints)
    for number in range(300):
        prefills = [request for request in core.running if request.remaining_tokens > 1]
        if len(prefills) + len(core.policy.waiting) < 3:
            core.add(text(2 + number, 200), LATENCY, max_tokens=1)
        core.step()
    assert other.is_complete


@pytest.mark.parametrize("hints", [THROUGHPUT, None])
def test_an_old_request_begins_though_others_are_held(hints: Raw | None) -> None:
    options = PluginOptions(max_wait_s=0.5, max_hold_s=0.2)
    core = FakeCore(options, is_trained=True)
    core.add(text(0, 20), THROUGHPUT, max_tokens=500)
    core.run(2)
    core.add(text(1, 9), {**LATENCY, "tpot_s": 0.0}, max_tokens=600)
    core.run(2)
    other = core.add(text(2, 20), hints)
    core.run(300)
    assert other.begun_s is not None


def test_an_old_request_that_finds_no_slot_does_not_stop_the_prompts_of_others() -> None:
    core = FakeCore(PluginOptions(max_wait_s=0.1), num_blocks=1000, slots=3, is_trained=True)
    core.add(text(0, 9), LATENCY, max_tokens=600)
    core.run(2)
    others = [core.add(text(number, 900), THROUGHPUT) for number in (1, 2)]
    core.step()
    waiting = core.add(text(3, 9), THROUGHPUT)
    core.run(70)
    assert all(other.is_complete for other in others)
    assert waiting.begun_s is not None


@pytest.mark.parametrize(
    ("hints", "num_tokens", "slots"), [(LATENCY, 9, 3), (LATENCY, 1300, 8), (THROUGHPUT, 1300, 8)]
)
def test_one_who_finds_no_room_does_not_stop_the_prompts_of_others(
    hints: Raw, num_tokens: int, slots: int
) -> None:
    """Without it, they take 27 steps."""
    core = FakeCore(PluginOptions(max_wait_s=0.1), num_blocks=460, slots=slots, is_trained=True)
    core.add(text(0, 9), LATENCY, max_tokens=600)
    core.run(2)
    others = [core.add(text(number, 900), GROUP) for number in (1, 2)]
    core.run(12)
    core.add(text(3, num_tokens), hints)
    core.run(100)
    assert all(other.is_complete for other in others)


# --- fill -----------------------------------------------------------------------------------------


def test_fill_leaves_a_tenth_free() -> None:
    core = FakeCore(num_blocks=40, max_step_tokens=400, slots=20)
    for number in range(12):
        core.add(text(number, 5 * BLOCK), FILL, max_tokens=1)
    assert len(core.step().begun) == 7
    assert len(core.drain()) < 5


@pytest.mark.parametrize("hints", [LATENCY, GROUP, THROUGHPUT, None])
def test_fill_begins_last(hints: Raw | None) -> None:
    core = FakeCore(slots=2)
    core.add(text(0, 9), THROUGHPUT, max_tokens=50)
    core.step()
    fill = core.add(text(1, 9), FILL, max_tokens=1, age_s=99)
    others = [core.add(text(n, 9), hints) for n in range(2, 5)]
    core.drain()
    assert fill.begun_s is not None
    assert all(each.begun_s is not None and each.begun_s < fill.begun_s for each in others)


def test_fill_does_not_begin_beside_a_waiting_request_without_room() -> None:
    core = FakeCore(num_blocks=20)
    core.add(text(0, 40), None, max_tokens=10)
    core.step()
    big = core.add(text(1, 60))
    fill = core.add(text(2, 8), FILL, max_tokens=1)
    core.run(4)
    assert big.begun_s is None
    assert fill.begun_s is None
    core.drain()


def test_fill_adds_nothing_to_the_steps_of_latency_work() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0, max_hold_s=1e6), is_trained=True)
    core.add(text(0, 9), LATENCY, max_tokens=60)
    core.run(2)
    core.add(text(1, 300), FILL, max_tokens=1)
    for step in core.run(50):
        assert step.elapsed_s <= alone_s(step) + _FIT_S
    core.drain()


# --- one goes on where another ends --------------------------------------------------------------


def test_a_request_goes_on_with_the_output_of_another() -> None:
    core = FakeCore()
    first = core.add(text(0, 9), {"name": "a"}, max_tokens=5)
    second = core.add(text(1, 10), {**LATENCY, "after": "a", "gap_at": 4})
    core.run(2)
    state = core.call("state")
    assert (state["staged"], state["waiting"], state["alive"]) == (1, 0, 2)
    assert second.begun_s is None
    core.drain()
    assert second.prompt == (*text(1, 10)[:4], *first.output, *text(1, 10)[4:])
    assert second.begun_s == first.ended_s, "in the very next step"
    assert second.is_complete
    assert core.call("state")["staged"] == 0
    assert core.policy.is_idle


def test_a_token_that_ends_the_output_is_not_put_in() -> None:
    core = FakeCore()
    first = core.add(text(0, 9), {"name": "a"}, max_tokens=3, stops=True)
    second = core.add(text(1, 8), {"after": "a", "gap_at": 8})
    core.drain()
    assert second.prompt == (*text(1, 8), *first.output[:2])


def test_one_who_comes_after_the_end_goes_on_at_once() -> None:
    core = FakeCore()
    first = core.add(text(0, 9), {"name": "a"})
    core.drain()
    second = core.add(text(1, 8), {"after": "a"})
    assert core.call("state")["waiting"] == 1
    core.drain()
    assert second.prompt == (*first.output, *text(1, 8))


def test_a_chain_goes_on_link_by_link_and_reads_what_is_cached() -> None:
    core = FakeCore(slots=1)
    chain = [core.add(text(0, 40), {"name": "0"}, max_tokens=5)]
    for number in range(1, 4):
        so_far = 40 + 4 * (number - 1)
        prompt = (*text(0, so_far), *text(number, 3))
        hints = {"name": str(number), "after": str(number - 1), "gap_at": so_far}
        chain.append(core.add(prompt, hints, max_tokens=5))
    core.drain()
    for before, request in itertools.pairwise(chain):
        gap_at = request.hints.gap_at
        assert request.prompt[gap_at : gap_at + 5] == tuple(before.output)
    assert chain[1].cached_tokens == 44


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("end", ["abort", "nothing"])
def test_nobody_goes_on_when_there_is_no_output(end: str, is_late: bool) -> None:
    core = FakeCore()
    length = 20 if end == "abort" else 1
    first = core.add(text(0, 9), {"name": "a"}, max_tokens=length, stops=True)
    hints = {"name": "b", "after": "a", "prefixes": [["k", 8]], "retain": ["k"]}
    second = None if is_late else core.add(text(1, 8), hints)
    if end == "abort":
        core.run(3)
        core.abort(first)
    core.drain()
    if second is None:
        second = core.add(text(1, 8), hints)
    core.run(3)
    assert second in core.staged
    assert core.call("state")["alive"] == 1
    core.abort(second)
    state = core.call("state")
    assert {state[name] for name in ("alive", "named", "staged", "pinned_tokens")} == {0}
    assert core.policy.is_idle
    core.check()


def test_who_is_aborted_while_it_is_kept_does_not_go_on() -> None:
    core = FakeCore()
    core.add(text(0, 9), {"name": "a"})
    kept = [core.add(text(n, 8), {"name": f"n{n}", "after": "a"}) for n in (1, 2)]
    core.run(2)
    core.abort(kept[0])
    core.check()
    assert core.call("state")["staged"] == 1
    core.drain()
    assert [request.is_complete for request in kept] == [False, True]
    assert kept[0].prompt == text(1, 8)
    assert core.policy.is_idle


def test_orders_do_not_change_what_a_request_waits_for() -> None:
    core = FakeCore()
    first = core.add(text(0, 9), {"name": "a"}, max_tokens=6)
    core.add(text(1, 9), {"name": "b"}, max_tokens=2)
    kept = core.add(text(2, 8), {**THROUGHPUT, "name": "c", "after": "a", "gap_at": 4})
    core.apply(["hints", "c", {**LATENCY, "after": "b", "gap_at": 2, "name": "d"}])
    core.apply(["hints", "a", {"after": "b"}], ["hints", "c", {"after": None}])
    core.run(4)
    assert kept in core.staged
    core.drain()
    assert kept.prompt == (*text(2, 8)[:4], *first.output, *text(2, 8)[4:])
    assert kept.request_class is RequestClass.LATENCY


def test_hints_that_changed_while_it_was_kept_count_when_it_goes_on() -> None:
    core = FakeCore(slots=1)
    core.add(text(0, 9), {**LATENCY, "name": "a"}, max_tokens=6)
    kept = core.add(text(2, 8), {**THROUGHPUT, "name": "c", "after": "a"})
    others = [core.add(text(number, 9), GROUP) for number in (3, 4)]
    core.run(2)
    core.apply(["hints", "c", LATENCY])
    assert begin_order(core, [kept, *others]) == [0, 1, 2]


def test_prefixes_of_a_kept_request_are_learnt_when_its_prompt_is_whole() -> None:
    core = FakeCore(num_blocks=60)
    first = core.add(text(0, 9), {"name": "a"}, max_tokens=12)
    hints = {"after": "a", "gap_at": 8, "prefixes": [["k", 20]], "retain": ["k"]}
    core.add(text(1, 12), hints)
    core.run(3)
    assert core.num_watches == 0
    core.drain()
    assert core.call("state")["pinned_tokens"] == 20
    assert core.ask(-1).result(0)["held"] == [("k", 20)]
    for number in range(20):
        core.add(text(5 + number, 60))
    core.drain()
    again = core.add((*text(1, 8), *first.output, 1, 2))
    core.drain()
    assert again.cached_tokens == 20


def test_who_was_kept_for_long_has_not_waited_for_long() -> None:
    """Age counts from when it goes on: it does not go before latency-sensitive work."""
    core = FakeCore(PluginOptions(max_wait_s=0.2), slots=1)
    core.add(text(0, 9), {**LATENCY, "name": "a"}, max_tokens=60)
    kept = core.add(text(1, 8), {**THROUGHPUT, "after": "a"})
    core.run(50)
    urgent = core.add(text(2, 9), LATENCY)
    assert begin_order(core, [kept, urgent]) == [1, 0]


def test_a_request_goes_on_after_the_last_one_of_a_name() -> None:
    core = FakeCore()
    core.add(text(0, 9), {"name": "a"})
    core.drain()
    second = core.add(text(1, 9), {"name": "a"}, max_tokens=9)
    kept = core.add(text(2, 8), {"after": "a"})
    core.drain()
    assert kept.prompt == (*second.output, *text(2, 8))


# --- requests without hints, and bad hints --------------------------------------------------------


def test_requests_without_hints_alone_are_left_to_vllm() -> None:
    core = FakeCore(num_blocks=30, slots=3)
    requests = []
    for number in range(12):
        requests.append(core.add(text(number, 30), None, max_tokens=6))
        core.step()
        assert core.policy.is_idle
    core.drain()
    begun = [request for step in core.steps for request in step.begun]
    assert begun == requests
    assert core.policy.is_idle
    assert core.num_watches == 0
    assert core.policy.fitter.model is None


@pytest.mark.parametrize(
    "raw", ["text", 5, [], {"class": "urgent"}, {"prefixes": [["a", -1]]}, {"x": 1, "tpot_s": "1"}]
)
def test_malformed_hints_are_told_once_and_the_request_is_served(
    raw: object, caplog: pytest.LogCaptureFixture
) -> None:
    core = FakeCore()
    with caplog.at_level(logging.DEBUG):
        requests = [core.add(text(number, 9), raw) for number in range(3)]
        requests.append(core.add(text(9, 9), {"name": "a"}))
        core.apply(["hints", "a", raw], ["hints", "a", {"class": 9}])
        core.drain()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert all(request.is_complete for request in requests)


def test_sound_hints_are_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    core = FakeCore()
    core.add(text(0, 9), {"prefixes": [["a", 8]], "retain": ["a"], **LATENCY})
    core.add(text(1, 9), {})
    core.drain()
    assert caplog.records == []


# --- the model of step times ----------------------------------------------------------------------


def test_step_times_are_learnt_while_hinted_requests_run() -> None:
    core = FakeCore()
    for number in range(30):
        core.add(text(number, 20 + 11 * number % 90), [LATENCY, THROUGHPUT, None][number % 3])
        core.run(number % 4)
    core.drain()
    model = core.policy.fitter.model
    assert model is not None
    assert model.base_s == pytest.approx(STEP_TIME.base_s, rel=0.1)
    assert model.per_prefill_token_s == pytest.approx(STEP_TIME.per_prefill_token_s, rel=0.1)


@pytest.mark.parametrize("gap_s", [0.0, STEP_TIME.base_s], ids=["at once", "after a while"])
def test_what_passes_between_steps_counts_while_there_is_work(gap_s: float) -> None:
    core = FakeCore()
    for number in range(30):
        core.now_s += 100.0  # nobody is there
        core.add(text(number, 20 + 11 * number % 90), LATENCY)
        for _ in range(8):
            core.step()
            core.now_s += gap_s
        core.drain()
    model = core.policy.fitter.model
    assert model is not None
    assert model.predict_s(StepWork.decode(30)) == pytest.approx(
        STEP_TIME.predict_s(StepWork.decode(30)) + gap_s, rel=0.1
    )


# --- everything at once ---------------------------------------------------------------------------

_HINTS = st.fixed_dictionaries(
    {},
    optional={
        "class": st.sampled_from(["latency", "task_group", "throughput", "fill", "wrong"]),
        "name": st.sampled_from("abcdef"),
        "group": st.sampled_from("gh"),
        "tenant": st.sampled_from("xyz"),
        "slack_s": st.sampled_from([-1.0, 0.5, 5.0]),
        "tpot_s": st.sampled_from([0.0, 0.012, 0.03]),
        "path_length": st.integers(0, 3),
        "after": st.sampled_from("abcdef"),
        "gap_at": st.integers(0, 20),
    },
)

_ORDERS = st.one_of(
    st.tuples(st.just("hints"), st.sampled_from("abcdef"), _HINTS).map(list),
    st.tuples(st.just("retain"), st.sampled_from(["p0", "p1", "q"]), st.sampled_from("abc")),
    st.tuples(st.just("retain"), st.sampled_from(["p0", "p1", "p2"]), st.none()),
    st.tuples(st.just("release"), st.sampled_from(["p0", "p1", "q"])),
)


def _chances(draw: Callable[[st.SearchStrategy[Any]], Any], core: FakeCore) -> None:
    """Let something happen between two steps."""
    kind = draw(st.sampled_from(["add"] * 5 + ["plain", "abort", "apply", "apply", "other"]))
    if kind in ("add", "plain"):
        shared, own = draw(st.integers(0, 3)), draw(st.integers(1, 60))
        prompt = (*text(shared, 10 * shared), *text(50 + draw(st.integers(0, 9)), own))
        hints = None
        if kind == "add":
            hints = dict(draw(_HINTS))
            hints["prefixes"] = [[f"p{shared}", 10 * shared]] if shared else []
            hints["retain"] = [f"p{shared}"] if shared and draw(st.booleans()) else []
        core.add(prompt, hints, max_tokens=draw(st.integers(1, 12)), stops=draw(st.booleans()))
    elif kind == "abort" and core.unfinished:
        core.abort(draw(st.sampled_from(list(core.unfinished))))
    elif kind == "apply":
        core.apply(*draw(st.lists(_ORDERS, max_size=3)))
    elif kind == "other":
        switches = st.sampled_from(["order", "pace", "preempt", "pin", "gang"])
        change = draw(st.one_of(st.just({}), st.dictionaries(switches, st.booleans(), max_size=2)))
        if change:
            core.call("configure", change)
        else:
            core.reset_prefix_cache()


def _check_splices(requests: list[FakeRequest]) -> None:
    """Check that each began with the whole output of one of the name it waited for."""
    for request in requests:
        hints = request.hints
        if hints is None or hints.after is None:
            assert request.prompt == request.first_prompt
        elif request.begun_s is not None:
            before, behind = (
                request.first_prompt[: hints.gap_at],
                request.first_prompt[hints.gap_at :],
            )
            assert request.prompt in {
                (*before, *each.output_ids, *behind)
                for each in requests
                if each.is_complete and each.hints is not None and each.hints.name == hints.after
            }


@examples(120, shrinks=False)
@given(
    st.data(),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.booleans(),
    st.sampled_from([1, 3, 8]),
)
def test_whatever_comes_every_request_ends(
    data: st.DataObject, max_pinned_share: float, is_trained: bool, slots: int
) -> None:
    options = PluginOptions(
        slowdown=1.2,
        max_hold_s=0.2,
        max_wait_s=1.0,
        max_pinned_share=max_pinned_share,
        pin_ttl_s=2.0,
    )
    core = FakeCore(options, num_blocks=30, slots=slots, is_trained=is_trained)
    all_requests: dict[FakeRequest, None] = {}
    for _ in range(data.draw(st.integers(5, 60))):
        _chances(data.draw, core)
        all_requests |= core.unfinished
        core.check()
        step = core.step()
        core.check()
        assert core.call("state")["staged"] <= len(core.staged)
        assert all(r.request_class is not RequestClass.LATENCY for r in step.held)
        if core.policy.options.order:
            assert not set(step.preempted) & set(step.admitted)
    core.drain()
    core.check()
    assert core.call("state")["alive"] == len(core.staged)
    for request in list(core.staged):
        assert request.begun_s is None
        core.abort(request)
    assert all(r.ended_s is not None for r in all_requests)
    _check_splices(list(all_requests))
    assert all(len(r.output) == r.max_tokens for r in all_requests if r.is_complete)
    for key in ("p1", "p2", "p3", "p0", "q"):
        core.apply(["release", key])
    core.check()
    state = core.call("state")
    assert {state[name] for name in ("alive", "named", "waiting", "pinned_tokens")} == {0}
    assert state["free_blocks"] == state["num_blocks"]
    if not core.policy.is_idle:
        core.ask(-1)
    assert core.policy.is_idle


def test_figures_are_told_without_any_prefix() -> None:
    core = FakeCore(is_trained=True)
    asked = core.policy.call("report", [-1], core.now_s)
    number = asked.result(0)["number"]
    core.add(text(0, 20), {"class": "latency"}, max_tokens=400)
    core.policy.call("report", [number], core.now_s)
    asked = core.policy.call("report", [number], core.now_s)
    core.drain()
    assert asked.result(0)["step_time"]["num_samples"] > 0


def test_a_release_is_told_at_once() -> None:
    core = FakeCore()
    core.add(text(0, 60), {"prefixes": [["k", 40]], "retain": ["k"]})
    core.drain()
    number = core.policy.call("report", [-1], core.now_s).result(0)["number"]
    asked = core.policy.call("report", [number], core.now_s)
    core.apply(["release", "k"])
    assert asked.result(0)["pinned_tokens"] == 0


def test_one_bad_order_spoils_no_others() -> None:
    core = FakeCore()
    core.add(text(0, 60), {"prefixes": [["k", 40]], "retain": ["k"]})
    core.drain()
    for bad in (["fly"], ["retain", 5, None], [], "release"):
        with pytest.raises(ValueError, match="no such order"):
            core.policy.call("apply", [[bad, ["release", "k"]]], core.now_s)
        assert core.call("state")["pinned_tokens"] == 0
