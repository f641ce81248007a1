"""The scheduler: which ready requests are placed, in which order, and what that books."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from parrot_backend.core.config import SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.core.scheduling.scheduler import Scheduler
from tests.helpers.builders import make_chain, make_engine, make_objective, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT
LATENCY = make_objective(L)
GROUP = make_objective(G, "s.g")

#: Where a test is about requests that the latency capacity keeps from running beside each other.
PAPER = {"placement": "paper"}


def make_scheduler(*engines: str, config: dict[str, Any] | None = None, **info: Any) -> Scheduler:
    """Return a scheduler with engines of 1000 tokens, 300 under latency."""
    scheduler = Scheduler(SchedulerConfig(**(config or {})), PrefixIndexConfig())
    info = {"capacity_tokens": 1000, "latency_capacity_tokens": 300} | info
    for name in engines:
        scheduler.add_engine(make_engine(name, **info), now_s=0.0)
    return scheduler


def schedule(scheduler: Scheduler, *requests: Request, now_s: float = 0.0) -> dict[str, str]:
    """Queue the requests, schedule once, and return which request went where."""
    for request in requests:
        scheduler.enqueue(request)
    made = scheduler.schedule(now_s, attempt_of)
    return {placement.request.id: placement.engine for placement in made}


def attempt_of(request: Request) -> AttemptId:
    return AttemptId(f"{request.id}~1")


def release(scheduler: Scheduler, name: str, engine: str = "a") -> None:
    scheduler.release(EngineId(engine), AttemptId(f"{name}~1"))


def thr(name: str, order: int, need_tokens: int = 100, **rest: Any) -> Request:
    return make_request(name, order=order, need_tokens=need_tokens, **rest)


def lat(name: str, order: int, need_tokens: int = 100, **rest: Any) -> Request:
    return make_request(name, order=order, need_tokens=need_tokens, objective=LATENCY, **rest)


# --- placing ---------------------------------------------------------------------------------


def test_nothing_queued_nothing_placed() -> None:
    assert schedule(make_scheduler("a")) == {}


def test_without_engines_nothing_is_placed() -> None:
    assert schedule(make_scheduler(), thr("r", 0)) == {}


def test_everything_is_placed_while_there_is_room() -> None:
    requests = [thr(str(i), i) for i in range(10)]
    assert len(schedule(make_scheduler("a"), *requests)) == 10


def test_what_has_no_room_stays_in_the_queue() -> None:
    scheduler = make_scheduler("a")
    requests = [thr(str(i), i) for i in range(11)]
    assert set(schedule(scheduler, *requests)) == {str(i) for i in range(10)}
    assert [r.id for r in scheduler.waiting()] == ["10"]


def test_what_is_placed_leaves_the_queue() -> None:
    scheduler = make_scheduler("a")
    schedule(scheduler, thr("r", 0))
    assert scheduler.num_waiting == 0


def test_no_more_requests_than_slots() -> None:
    scheduler = make_scheduler("a", max_requests=2)
    assert set(schedule(scheduler, *[thr(str(i), i) for i in range(3)])) == {"0", "1"}


def test_freed_room_is_used_in_serving_order() -> None:
    scheduler = make_scheduler("a", max_requests=1)
    schedule(scheduler, thr("first", 0), thr("third", 2), thr("second", 1))
    release(scheduler, "first")
    assert schedule(scheduler) == {"second": "a"}


def test_engine_that_joins_is_used_at_once() -> None:
    scheduler = make_scheduler("a", max_requests=1)
    schedule(scheduler, thr("r", 0), thr("q", 1))
    scheduler.add_engine(make_engine("b"), now_s=0.0)
    assert schedule(scheduler) == {"q": "b"}


def test_oldest_of_equal_engines_is_used_whichever_was_free_first() -> None:
    scheduler = make_scheduler("a", "b", max_requests=1)
    schedule(scheduler, thr("r", 0), thr("q", 1))
    release(scheduler, "q", "b")
    release(scheduler, "r", "a")
    assert schedule(scheduler, thr("next", 2)) == {"next": "a"}


def test_removed_engine_is_not_used() -> None:
    scheduler = make_scheduler("a", "b")
    scheduler.remove_engine(EngineId("a"))
    assert schedule(scheduler, thr("r", 0)) == {"r": "b"}


def test_removed_engine_gives_its_account() -> None:
    scheduler = make_scheduler("a")
    schedule(scheduler, thr("r", 0))
    assert list(scheduler.remove_engine(EngineId("a")).running) == ["r~1"]


def test_withdrawn_request_is_not_placed() -> None:
    scheduler = make_scheduler("a")
    request = thr("r", 0)
    scheduler.enqueue(request)
    scheduler.withdraw(request)
    assert schedule(scheduler) == {}


def test_request_that_is_not_queued_may_be_withdrawn() -> None:
    make_scheduler("a").withdraw(thr("r", 0))


def test_engine_without_slots_gets_nothing() -> None:
    assert schedule(make_scheduler("a", max_requests=0), thr("r", 0)) == {}


# --- accounts ----------------------------------------------------------------------------------


def test_placed_request_is_booked() -> None:
    scheduler = make_scheduler("a")
    schedule(scheduler, lat("r", 0, need_tokens=120))
    engine = scheduler.engines[EngineId("a")]
    assert (engine.used_tokens, engine.latency_tokens) == (120, 120)


def test_group_member_is_not_booked_as_latency() -> None:
    scheduler = make_scheduler("a")
    schedule(scheduler, thr("r", 0, objective=GROUP))
    assert scheduler.engines[EngineId("a")].latency_tokens == 0


def test_prefix_that_is_held_is_not_booked_again() -> None:
    scheduler = make_scheduler("a")
    chain = make_chain(("p", 60))
    schedule(scheduler, thr("r", 0, prefixes=chain), thr("q", 1, prefixes=chain))
    assert scheduler.engines[EngineId("a")].used_tokens == 100 + 40


def test_engine_holds_the_prefix_of_what_was_placed_there() -> None:
    scheduler = make_scheduler("a", "b")
    chain = make_chain(("p", 60))
    schedule(scheduler, thr("r", 0, prefixes=chain))
    assert scheduler.prefixes.engines_with(chain) == ("a",)


def test_later_request_goes_to_the_engine_that_holds_its_prefix() -> None:
    scheduler = make_scheduler("a", "b")
    chain = make_chain(("p", 60))
    schedule(scheduler, thr("r", 0, prefixes=chain))
    assert schedule(scheduler, thr("q", 1, prefixes=chain)) == {"q": "a"}


def test_released_request_is_off_the_account() -> None:
    scheduler = make_scheduler("a")
    schedule(scheduler, lat("r", 0))
    release(scheduler, "r")
    engine = scheduler.engines[EngineId("a")]
    assert (engine.used_tokens, engine.latency_tokens) == (0, 0)


# --- passing over ------------------------------------------------------------------------------


def busy_scheduler(**config: Any) -> Scheduler:
    """Return a scheduler whose one engine has 200 of 1000 tokens left."""
    scheduler = make_scheduler("a", config={"ordering": "application", **config})
    schedule(scheduler, thr("running", 0, need_tokens=800))
    return scheduler


def test_smaller_request_passes_a_blocked_one() -> None:
    found = schedule(busy_scheduler(), thr("large", 1, need_tokens=300), thr("small", 2))
    assert found == {"small": "a"}


@pytest.mark.parametrize(("max_backfill", "is_placed"), [(0, False), (1, False), (2, True)])
def test_no_more_than_so_many_are_passed_over(max_backfill: int, is_placed: bool) -> None:
    scheduler = busy_scheduler(max_backfill=max_backfill)
    large = [thr(f"large{i}", 1 + i, need_tokens=300) for i in range(2)]
    assert ("small" in schedule(scheduler, *large, thr("small", 9))) is is_placed


def test_throughput_does_not_pass_a_blocked_latency_request_of_its_model() -> None:
    found = schedule(busy_scheduler(), lat("urgent", 1, need_tokens=300), thr("small", 2))
    assert found == {}


def test_throughput_of_another_model_passes_a_blocked_latency_request() -> None:
    scheduler = busy_scheduler()
    scheduler.add_engine(make_engine("b", models=("n",)), now_s=0.0)
    urgent = lat("urgent", 1, need_tokens=300, model="m")
    assert schedule(scheduler, urgent, thr("small", 2, model="n")) == {"small": "b"}


def test_latency_request_gets_the_room_that_is_freed() -> None:
    scheduler = busy_scheduler()
    schedule(scheduler, lat("urgent", 1, need_tokens=300), thr("small", 2))
    release(scheduler, "running")
    assert schedule(scheduler) == {"urgent": "a"}


def test_nothing_passes_an_old_request() -> None:
    scheduler = busy_scheduler(max_wait_s=30.0)
    schedule(scheduler, thr("large", 1, need_tokens=300))
    assert schedule(scheduler, thr("small", 2, ready_s=30.0), now_s=30.0) == {}


def test_old_request_goes_before_a_latency_request() -> None:
    scheduler = busy_scheduler(max_wait_s=30.0)
    schedule(scheduler, thr("large", 1, need_tokens=900))
    release(scheduler, "running")
    urgent = lat("urgent", 2, ready_s=30.0)
    assert schedule(scheduler, urgent, now_s=30.0) == {"large": "a", "urgent": "a"}


def test_large_request_does_not_starve_under_a_flood_of_small_latency_requests() -> None:
    scheduler = make_scheduler("a", config={"ordering": "application", "max_wait_s": 5.0})
    running = [f"l{i}" for i in range(3)]
    schedule(scheduler, *[lat(name, i) for i, name in enumerate(running)])
    scheduler.enqueue(thr("large", 9, need_tokens=1000, ready_s=0.0))
    for second in range(1, 20):
        # One ends and one comes, so that the engine is never empty while any may pass.
        if running:
            release(scheduler, running.pop(0))
        new = lat(f"m{second}", 10 + second, ready_s=float(second))
        placed_now = schedule(scheduler, new, now_s=float(second))
        if "large" in placed_now:
            return
        running += placed_now
    raise AssertionError("the large request was never placed")


# --- requests that are not bounded ---------------------------------------------------------------


UNBOUNDED = replace(LATENCY, is_bounded=False)


def free(name: str, order: int, **fields: Any) -> Request:
    """Return a latency-sensitive request that is not bounded by the latency capacity."""
    return make_request(name, order=order, objective=UNBOUNDED, **fields)


@pytest.mark.parametrize("ordering", ["urgency", "application", "topological"])
@pytest.mark.parametrize(
    "objective",
    [make_objective(T), GROUP],
    ids=["throughput", "group"],
)
def test_no_flood_of_unbounded_requests_starves_others(ordering: str, objective: Objective) -> None:
    scheduler = make_scheduler("a", config={"ordering": ordering, "max_wait_s": 5.0})
    running = [f"l{i}" for i in range(3)]
    schedule(scheduler, *[free(name, i, need_tokens=200) for i, name in enumerate(running)])
    scheduler.enqueue(make_request("other", order=9, need_tokens=300, objective=objective))
    for second in range(1, 30):
        if running:
            release(scheduler, running.pop(0))
        new = free(f"m{second}", 10 + second, need_tokens=200, ready_s=float(second))
        placed_now = schedule(scheduler, new, now_s=float(second))
        if "other" in placed_now:
            return
        running += placed_now
    raise AssertionError("it was never placed")


def test_a_group_of_what_was_not_asked_for_is_placed_beside_unbounded_requests() -> None:
    scheduler = make_scheduler("a", capacity_tokens=100_000, latency_capacity_tokens=6144)
    schedule(scheduler, *[free(f"c{i}", i, need_tokens=4000) for i in range(6)])
    group = replace(GROUP, is_bounded=False)
    coders = [make_request(f"w{i}", order=10 + i, objective=group) for i in range(4)]
    assert len(schedule(scheduler, *coders)) == 4


def test_unbounded_requests_take_no_bounded_ones_past_a_blocked_one() -> None:
    room = {"capacity_tokens": 10_000, "latency_capacity_tokens": 3000}
    scheduler = make_scheduler("a", config=PAPER, **room)
    schedule(scheduler, lat("running", 0, need_tokens=1500))
    blocked = lat("blocked", 1, need_tokens=2000)
    both = make_chain(("shared", 500))
    first = free("free", 2, prefixes=both)
    bounded = lat("bounded", 3, need_tokens=900, prefixes=both)
    assert schedule(scheduler, blocked, first, bounded) == {"free": "a"}


def test_many_blocked_bounded_requests_do_not_block_unbounded_ones() -> None:
    scheduler = make_scheduler("a", config=PAPER, capacity_tokens=10_000, max_requests=99)
    schedule(scheduler, lat("running", 0, need_tokens=300))
    blocked = [lat(f"l{i}", 1 + i, need_tokens=300) for i in range(20)]
    assert schedule(scheduler, *blocked, free("free", 99)) == {"free": "a"}


# --- heads of other lines ------------------------------------------------------------------------


def two_models(**config: Any) -> Scheduler:
    """Return a scheduler with a full engine of model m and an idle one of model n."""
    scheduler = make_scheduler("a", config=config, max_requests=1)
    scheduler.add_engine(make_engine("b", models=("n",), capacity_tokens=1000), now_s=0.0)
    schedule(scheduler, thr("running", 0, model="m"))
    return scheduler


def test_many_blocked_requests_of_one_model_do_not_block_another() -> None:
    scheduler = two_models(max_backfill=8)
    blocked = [thr(f"m{i}", 1 + i, model="m") for i in range(20)]
    assert schedule(scheduler, *blocked, thr("free", 99, model="n")) == {"free": "b"}


def test_old_blocked_request_of_one_model_does_not_block_another() -> None:
    scheduler = two_models(max_wait_s=30.0)
    scheduler.enqueue(thr("old", 1, model="m", ready_s=0.0))
    fresh = thr("free", 2, model="n", ready_s=40.0)
    assert schedule(scheduler, fresh, now_s=40.0) == {"free": "b"}


def test_old_request_of_a_model_without_engine_does_not_block_another() -> None:
    scheduler = make_scheduler("a", config={"max_wait_s": 30.0})
    scheduler.enqueue(thr("lost", 1, model="gone", ready_s=0.0))
    fresh = thr("free", 2, ready_s=40.0)
    assert schedule(scheduler, fresh, now_s=40.0) == {"free": "a"}


def test_many_requests_of_a_model_without_engine_do_not_block_another() -> None:
    scheduler = make_scheduler("a", config={"max_backfill": 8})
    lost = [thr(f"lost{i}", 1 + i, model="gone") for i in range(20)]
    assert schedule(scheduler, *lost, thr("free", 99)) == {"free": "a"}


def test_request_waits_for_a_full_engine_rather_than_go_where_it_failed() -> None:
    scheduler = make_scheduler("a", "b", max_requests=1)
    schedule(scheduler, thr("running", 0, avoided=["a"]))
    assert schedule(scheduler, thr("again", 1, avoided=["a"])) == {}


def shared_engine(**config: Any) -> Scheduler:
    """Return a scheduler whose one engine serves models m and n and has 200 of 1000 tokens left."""
    scheduler = make_scheduler("a", config=config, models=("m", "n"))
    schedule(scheduler, thr("running", 0, need_tokens=800, model="n"))
    return scheduler


def test_nothing_of_another_model_takes_the_room_an_old_request_waits_for() -> None:
    scheduler = shared_engine(max_wait_s=30.0)
    scheduler.enqueue(thr("old", 1, need_tokens=900, model="m", ready_s=0.0))
    fresh = thr("fresh", 2, model="n", ready_s=40.0)
    assert schedule(scheduler, fresh, now_s=40.0) == {}


def test_nothing_of_another_model_takes_the_room_a_latency_request_waits_for() -> None:
    scheduler = shared_engine(ordering="application")
    urgent = lat("urgent", 1, need_tokens=300, model="m")
    assert schedule(scheduler, urgent, thr("fresh", 2, model="n")) == {}


def test_large_request_does_not_starve_under_a_flood_for_another_model() -> None:
    scheduler = make_scheduler("a", config={"max_wait_s": 5.0}, models=("m", "n"))
    running = [f"n{i}" for i in range(5)]
    schedule(scheduler, *(thr(name, i, model="n") for i, name in enumerate(running)))
    scheduler.enqueue(thr("large", 9, need_tokens=1000, model="m", ready_s=0.0))
    for second in range(1, 30):
        if running:
            release(scheduler, running.pop(0))
        new = thr(f"f{second}", 10 + second, model="n", ready_s=float(second))
        placed_now = schedule(scheduler, new, now_s=float(second))
        if "large" in placed_now:
            return
        running += placed_now
    raise AssertionError("the large request was never placed")


def test_request_that_avoids_an_idle_engine_does_not_keep_others_from_it() -> None:
    scheduler = make_scheduler("a", "b", max_requests=1)
    schedule(scheduler, thr("running", 0, avoided=["a"]))
    urgent = lat("urgent", 1, avoided=["a"])
    assert schedule(scheduler, urgent, thr("other", 2)) == {"other": "a"}


def test_old_request_that_avoids_an_idle_engine_does_not_keep_others_from_it() -> None:
    scheduler = make_scheduler("a", "b", config={"max_wait_s": 30.0}, max_requests=1)
    schedule(scheduler, thr("running", 0, avoided=["a"]))
    scheduler.enqueue(thr("old", 1, avoided=["a"], ready_s=0.0))
    assert schedule(scheduler, thr("other", 2, ready_s=40.0), now_s=40.0) == {"other": "a"}


# --- groups ------------------------------------------------------------------------------------


def group(number: int, **rest: Any) -> list[Request]:
    return [thr(f"g{i}", 10 + i, objective=GROUP, **rest) for i in range(number)]


def test_group_is_placed_at_once_on_one_engine() -> None:
    scheduler = make_scheduler("a", "b")
    schedule(scheduler, thr("running", 0, need_tokens=500))
    assert schedule(scheduler, *group(3)) == {"g0": "b", "g1": "b", "g2": "b"}


def test_group_is_not_bound_by_the_latency_capacity() -> None:
    assert len(schedule(make_scheduler("a"), *group(10))) == 10


def test_group_larger_than_every_engine_is_spread() -> None:
    found = schedule(make_scheduler("a", "b"), *group(20))
    assert sorted(found.values()) == ["a"] * 10 + ["b"] * 10


def test_member_that_becomes_ready_later_is_placed_alone() -> None:
    scheduler = make_scheduler("a")
    first = schedule(scheduler, *group(2))
    second = schedule(scheduler, thr("g9", 30, objective=GROUP))
    assert (set(first), set(second)) == ({"g0", "g1"}, {"g9"})


def test_each_member_is_placed_once() -> None:
    scheduler = make_scheduler("a")
    for request in group(4):
        scheduler.enqueue(request)
    made = [p.request.id for p in scheduler.schedule(0.0, attempt_of)]
    assert made == ["g0", "g1", "g2", "g3"]


# --- changed objectives --------------------------------------------------------------------------


def test_queued_request_moves_with_its_objective() -> None:
    scheduler = busy_scheduler()
    slow, fast = thr("slow", 1, need_tokens=300), thr("fast", 2, need_tokens=300)
    schedule(scheduler, slow, fast)
    scheduler.set_objective(fast, LATENCY)
    assert [r.id for r in scheduler.waiting()] == ["fast", "slow"]


def test_request_that_is_not_queued_just_gets_its_objective() -> None:
    request = thr("r", 1)
    make_scheduler("a").set_objective(request, LATENCY)
    assert request.objective == LATENCY


def test_running_request_stays_booked_as_it_was_placed() -> None:
    scheduler = make_scheduler("a")
    request = thr("r", 1)
    schedule(scheduler, request)
    scheduler.set_objective(request, LATENCY)
    release(scheduler, "r")
    engine = scheduler.engines[EngineId("a")]
    assert (engine.used_tokens, engine.latency_tokens) == (0, 0)


# --- passes that are left out --------------------------------------------------------------------


def full_of_latency() -> Scheduler:
    """Return a scheduler whose engine has room, and 50 tokens left of its latency capacity."""
    scheduler = make_scheduler("a", config=PAPER)
    schedule(scheduler, lat("running", 0, need_tokens=250))
    return scheduler


def test_what_an_engine_says_it_holds_may_let_a_blocked_request_in() -> None:
    scheduler, chain = full_of_latency(), make_chain(("p", 60))
    assert schedule(scheduler, lat("r", 1, need_tokens=100, prefixes=chain)) == {}
    scheduler.prefixes.report(EngineId("a"), chain, ())
    assert schedule(scheduler) == {"r": "a"}


def test_what_was_placed_may_let_in_what_was_blocked_before() -> None:
    scheduler, chain = full_of_latency(), make_chain(("p", 60))
    blocked = lat("blocked", 1, need_tokens=100, prefixes=chain)
    assert schedule(scheduler, blocked, free("free", 2, prefixes=chain)) == {"free": "a"}
    assert schedule(scheduler) == {"blocked": "a"}


def test_what_was_placed_counts_for_what_the_blocked_behind_it_wait_for() -> None:
    scheduler = full_of_latency()
    first, small, last = (lat(f"l{i}", i, need_tokens=n) for i, n in ((1, 100), (3, 55), (4, 100)))
    # Beside the large one there is room for the small one, and none for the last.
    large, tiny = free("large", 2, need_tokens=690), free("tiny", 5, need_tokens=20)
    assert schedule(scheduler, first, large, small, last, tiny) == {"large": "a"}


def test_a_change_of_what_a_blocked_request_is_for_may_let_it_in() -> None:
    scheduler, request = full_of_latency(), lat("r", 1, need_tokens=100)
    assert schedule(scheduler, request) == {}
    scheduler.set_objective(request, UNBOUNDED)
    assert schedule(scheduler) == {"r": "a"}


def test_a_new_request_before_those_that_are_blocked_is_looked_at() -> None:
    scheduler = full_of_latency()
    assert schedule(scheduler, *(lat(f"l{i}", 10 + i, need_tokens=100) for i in range(70))) == {}
    assert schedule(scheduler, lat("small", 1, need_tokens=40)) == {"small": "a"}
