"""Who has to make room for whom, and when pins do."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_backend.vllm_compat.seams import CoreRequest
from parrot_backend.vllm_plugin.options import PluginOptions
from tests.vllm_plugin.fake_core import BLOCK, FakeCore, FakeRequest, text

Raw = dict[str, Any]

LATENCY: Raw = {"class": "latency"}
GROUP: Raw = {"class": "task_group"}
THROUGHPUT: Raw = {"class": "throughput"}
FILL: Raw = {"class": "fill"}


def start(core: FakeCore, hints: list[Raw | None], num_tokens: int = 20) -> list[FakeRequest]:
    """Return requests that run, and will for long."""
    requests = []
    for number, each in enumerate(hints):
        requests.append(core.add(text(number, num_tokens), each, max_tokens=40))
        core.run(2)
    assert core.running == requests
    return requests


def keep(core: FakeCore, number: int, num_blocks: int) -> str:
    """Pin a prefix that nobody uses."""
    key = f"k{number}"
    tokens = num_blocks * BLOCK
    hints = {"prefixes": [[key, tokens]], "retain": [key], **LATENCY}
    before = core.policy.keeper.num_pinned_blocks
    core.add(text(500 + number, tokens), hints, max_tokens=1)
    core.drain()
    assert core.policy.keeper.num_pinned_blocks == before + num_blocks
    return key


# --- slots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "victim"),
    [
        ([THROUGHPUT], 0),
        ([FILL], 0),
        ([THROUGHPUT, FILL, THROUGHPUT], 1),
        ([THROUGHPUT, THROUGHPUT, GROUP], 1),
        ([LATENCY, GROUP, None], None),
    ],
)
def test_a_slot_is_made_free_at_the_cost_of_the_least(
    running: list[Raw | None], victim: int | None
) -> None:
    core = FakeCore(slots=len(running))
    requests = start(core, running)
    urgent = core.add(text(9, 9), LATENCY)
    step = core.step()
    core.check()
    assert step.preempted == ([] if victim is None else [requests[victim]])
    assert step.begun == ([] if victim is None else [urgent])
    core.drain()
    assert all(len(request.output) == 40 for request in requests)


@pytest.mark.parametrize("waiting", [GROUP, THROUGHPUT, FILL, None])
@pytest.mark.parametrize("running", [LATENCY, GROUP, THROUGHPUT, FILL])
def test_nobody_else_has_others_preempted(waiting: Raw | None, running: Raw) -> None:
    core = FakeCore(slots=1)
    start(core, [running])
    core.add(text(9, 9), waiting)
    core.drain()
    assert all(step.preempted == [] for step in core.steps)


def test_as_many_slots_as_are_needed() -> None:
    core = FakeCore(slots=4)
    requests = start(core, [THROUGHPUT] * 3)
    urgent = [core.add(text(9 + n, 9), LATENCY) for n in range(3)]
    step = core.step()
    assert step.preempted == requests[1:]
    assert step.begun == urgent


def test_preemption_can_be_switched_off() -> None:
    core = FakeCore(PluginOptions(preempt=False), slots=1)
    start(core, [THROUGHPUT])
    core.add(text(9, 9), LATENCY)
    assert all(step.preempted == [] for step in core.drain())


def test_preemption_without_order_is_not_in_vain() -> None:
    core = FakeCore(PluginOptions(order=False), slots=1)
    start(core, [THROUGHPUT])
    urgent = core.add(text(9, 9), LATENCY)
    step = core.step()
    assert step.preempted == [] or step.begun == [urgent]


def test_who_cannot_be_preempted_now_runs_on() -> None:
    core = FakeCore(slots=2)
    requests = start(core, [THROUGHPUT, THROUGHPUT])
    core.can_preempt = False
    urgent = core.add(text(9, 9), LATENCY)
    step = core.step()
    core.check()
    assert step.preempted == []
    assert core.running == requests
    core.drain()
    assert urgent.is_complete


# --- blocks ---------------------------------------------------------------------------------------


def test_blocks_are_made_free_at_the_cost_of_the_least() -> None:
    core = FakeCore(num_blocks=32)
    requests = start(core, [THROUGHPUT, GROUP, THROUGHPUT], num_tokens=36)
    assert core.pool.num_free() < 8
    urgent = core.add(text(9, 32), LATENCY)
    step = core.step()
    assert step.preempted == [requests[2]]
    assert step.begun == [urgent]
    core.drain()
    assert all(len(request.output) == 40 for request in requests)


def test_a_preempted_request_does_not_begin_in_the_same_step() -> None:
    core = FakeCore(num_blocks=20)
    (other,) = start(core, [THROUGHPUT], num_tokens=40)
    urgent = core.add(text(9, 44), LATENCY, max_tokens=1)
    step = core.step()
    assert step.preempted == [other]
    assert step.admitted == [urgent]


def test_nobody_is_preempted_in_vain() -> None:
    core = FakeCore(num_blocks=60)
    start(core, [GROUP], num_tokens=140)
    other = core.add(text(5, 40), THROUGHPUT, max_tokens=40)
    core.run(3)
    urgent = core.add(text(9, 120), LATENCY)
    core.run(3)
    assert urgent.begun_s is None
    assert other.num_preemptions == 0


def test_nobody_is_preempted_for_blocks_that_stay_in_use() -> None:
    core = FakeCore(num_blocks=100)
    key = keep(core, 0, 40)
    hints = {**THROUGHPUT, "prefixes": [[key, 160]]}
    others = [core.add((*text(500, 160), *text(n, 8)), hints, max_tokens=40) for n in range(2)]
    core.add(text(3, 180), GROUP, max_tokens=60)
    core.run(8)
    urgent = core.add(text(9, 60), LATENCY)
    core.run(3)
    assert urgent.begun_s is None
    assert [other.num_preemptions for other in others] == [0, 0]


def test_nobody_is_preempted_for_blocks_that_are_there() -> None:
    core = FakeCore(num_blocks=80)
    (other,) = start(core, [THROUGHPUT], num_tokens=200)
    core.add((*text(0, 196), 1, 2, 3), LATENCY)
    core.step()
    assert other.num_preemptions == 0


def test_who_sits_a_step_out_makes_room_for_those_who_run() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0), num_blocks=24, is_trained=True)
    others = start(core, [THROUGHPUT, THROUGHPUT], num_tokens=24)
    urgent = core.add(text(9, 20), LATENCY, max_tokens=30)
    core.drain()
    assert urgent.num_preemptions == 0
    assert sum(request.num_preemptions for request in others) > 0
    assert all(len(request.output) == 40 for request in others)


def test_who_sits_a_step_out_and_cannot_be_preempted_is_not_lost() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0), num_blocks=24, is_trained=True)
    others = start(core, [THROUGHPUT, THROUGHPUT], num_tokens=24)
    core.add(text(9, 20), LATENCY, max_tokens=30)
    core.step()
    core.can_preempt = False
    for _ in range(40):
        core.step()
        core.check()
    core.can_preempt = True
    core.drain()
    assert all(len(request.output) == 40 for request in others)


@pytest.mark.parametrize("hints", [GROUP, None])
def test_who_sits_a_step_out_gives_way_before_a_latency_request_does(hints: Raw | None) -> None:
    core = FakeCore(PluginOptions(slowdown=1.0, max_hold_s=0.2), num_blocks=24, is_trained=True)
    others = start(core, [hints, hints], num_tokens=24)
    urgent = core.add(text(9, 20), LATENCY, max_tokens=60)
    core.drain()
    assert urgent.num_preemptions == 0
    assert all(len(request.output) == 40 for request in others)


def test_throughput_work_gives_way_first() -> None:
    core = FakeCore(num_blocks=40, slots=4)
    group, other = start(core, [GROUP, THROUGHPUT])
    beside = core.add(text(9, 20), LATENCY)
    held: list[CoreRequest] = [other, group]
    taken = core.pool.allocate(core.pool.num_free())
    core.policy._room.make_for_step([beside], held)
    core.pool.let_go(taken)
    assert held == [group]


# --- age ------------------------------------------------------------------------------------------


def test_an_old_request_is_not_preempted_as_soon_as_it_begins() -> None:
    core = FakeCore(PluginOptions(max_wait_s=1.0), slots=1, num_blocks=30)
    other = core.add(text(999, 100), THROUGHPUT, max_tokens=4)
    for number in range(600):
        if len(core.unfinished) < 4:
            core.add(text(number, 100), LATENCY)
        core.step()
    assert other.is_complete


def test_who_ran_for_long_does_not_go_before_latency_work_once_preempted() -> None:
    core = FakeCore(PluginOptions(max_wait_s=1.0), slots=2)
    for number in range(2):
        core.add(text(number, 20), THROUGHPUT, max_tokens=300)
    core.run(120)
    core.add(text(8, 9), LATENCY, max_tokens=100)
    core.step()
    urgent = core.add(text(9, 9), LATENCY)
    core.run(2)
    assert urgent.begun_s is not None


def test_what_was_let_in_for_its_age_gives_way_last_when_it_sits_a_step_out() -> None:
    core = FakeCore(num_blocks=24, slots=3)
    old, new = start(core, [THROUGHPUT, THROUGHPUT])
    room = core.policy._room
    room.spare(new)
    taken = core.pool.allocate(core.pool.num_free())
    held: list[CoreRequest] = [old, new]
    beside = core.add(text(9, 40), LATENCY)
    room.make_for_step([beside], held)
    core.pool.let_go(taken)
    assert old.num_preemptions == 1
    assert old not in held


def test_what_came_and_was_preempted_long_ago_is_old_again() -> None:
    core = FakeCore(PluginOptions(max_wait_s=1.0), slots=1)
    (other,) = start(core, [THROUGHPUT])
    core.run(5)
    for number in range(400):
        if len(core.unfinished) < 3:
            core.add(text(number + 9, 9), LATENCY, max_tokens=20)
        core.step()
    assert other.num_preemptions == 1
    assert other.is_complete


# --- pins -----------------------------------------------------------------------------------------


def test_pins_give_way_to_what_waits_when_nothing_runs() -> None:
    core = FakeCore(PluginOptions(max_pinned_share=1.0), num_blocks=40)
    for number in range(3):
        keep(core, number, 12)
    request = core.add(text(0, 100), THROUGHPUT)
    core.drain()
    assert request.is_complete
    assert request.ended_s is not None
    assert request.ended_s - request.arrival_s < 1.0
    core.check()


def test_pins_give_way_to_a_request_without_hints_when_nothing_runs() -> None:
    core = FakeCore(num_blocks=40)
    keep(core, 0, 20)
    core.add(text(0, 100))
    core.drain()


def test_pins_give_way_to_a_request_without_hints_before_one_with_hints() -> None:
    core = FakeCore(num_blocks=40)
    keep(core, 0, 20)
    core.add(text(0, 100))
    core.add(text(1, 9), THROUGHPUT)
    core.drain()


def test_pins_stay_while_throughput_work_can_give_way() -> None:
    core = FakeCore(num_blocks=40)
    keep(core, 0, 15)
    (other,) = start(core, [THROUGHPUT], num_tokens=60)
    urgent = core.add(text(9, 60), LATENCY)
    step = core.step()
    assert step.begun == [urgent]
    assert step.preempted == [other]
    assert core.policy.keeper.num_pinned_blocks == 15
    core.check()
    core.drain()
    assert len(other.output) == 40


def test_latency_work_waits_for_pins_no_longer_than_somebody_runs() -> None:
    core = FakeCore(num_blocks=40)
    keep(core, 0, 15)
    (other,) = start(core, [GROUP], num_tokens=60)
    urgent = core.add(text(9, 110), LATENCY)
    for number in range(4):
        core.add(text(10 + number, 9), THROUGHPUT)
    core.drain()
    assert urgent.begun_s == other.ended_s
    assert core.policy.keeper.num_pinned_blocks == 0


@pytest.mark.parametrize(("waiting", "pinned_after_s"), [(LATENCY, 0.5), (THROUGHPUT, None)])
def test_latency_work_waits_for_pins_for_a_while_only(
    waiting: Raw, pinned_after_s: float | None
) -> None:
    core = FakeCore(num_blocks=60)
    keep(core, 0, 20)
    core.add(text(0, 60), GROUP, max_tokens=80)
    core.run(3)
    request = core.add(text(9, 110), waiting)
    while request.begun_s is None:
        is_pinned = core.policy.keeper.num_pinned_blocks == 20
        core.step()
        core.check()
    assert is_pinned
    waited_s = request.begun_s - request.arrival_s
    if pinned_after_s is None:
        assert core.running == [request], "the other made room when it ended"
    else:
        assert pinned_after_s < waited_s < pinned_after_s + 0.05


def test_pins_give_way_to_those_who_run() -> None:
    core = FakeCore(num_blocks=40)
    keep(core, 0, 18)
    requests = start(core, [GROUP, GROUP], num_tokens=40)
    core.drain()
    assert all(request.num_preemptions == 0 for request in requests)


def test_pins_stay_as_long_as_there_is_room() -> None:
    core = FakeCore(num_blocks=100)
    keep(core, 0, 40)
    for number in range(30):
        core.add(text(number, 40), [THROUGHPUT, GROUP, None][number % 3])
        core.step()
    core.drain()
    assert core.policy.keeper.num_pinned_blocks == 40


@pytest.mark.parametrize("running", [GROUP, THROUGHPUT])
def test_a_prefix_stays_pinned_when_it_is_used_and_costs_nobody_anything(running: Raw) -> None:
    core = FakeCore(num_blocks=100)
    key = keep(core, 0, 40)
    (other,) = start(core, [running], num_tokens=180)
    urgent = core.add((*text(500, 160), 1, 2), {**LATENCY, "prefixes": [[key, 160]]})
    step = core.step()
    assert step.begun == [urgent]
    assert urgent.cached_tokens == 160
    assert core.policy.keeper.num_pinned_blocks == 40
    assert other.num_preemptions == 0


@pytest.mark.parametrize("hints", [THROUGHPUT, None])
def test_pins_keep_nobody_waiting_while_others_come_and_go(hints: Raw | None) -> None:
    core = FakeCore(num_blocks=200)
    for number in range(4):
        prefix = {"prefixes": [[f"p{number}", 190]], "retain": [f"p{number}"]}
        core.add(text(number, 195), prefix)
        core.drain()
    pinned = core.call("state")["pinned_tokens"]
    large = core.add(text(50, 125 * BLOCK), hints, max_tokens=4)
    begin_s, number = core.now_s, 100
    while large.begun_s is None:
        if len(core.unfinished) < 4:
            number += 1
            core.add(text(number, 20), LATENCY, max_tokens=20)
        core.step()
        assert core.now_s - begin_s < 10.0
    assert pinned > 0
