"""Large and awkward graphs: no recursion, and costs that grow as the work does.

A cost is counted in lines of code and compared with that of twice as much work: about 2 when it is
linear, 4 when it is quadratic.
"""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable

import pytest

from parrot_backend.core.commands import StartRequest
from parrot_backend.core.config import CoreConfig, PlacementName, SchedulerConfig
from parrot_backend.core.criteria import Criteria
from parrot_backend.core.events import CallSpec, NodeSpec
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import SessionId
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.core.steps import count_steps, growth
from tests.helpers.builders import (
    LATENCY,
    SESSION,
    THROUGHPUT,
    make_call,
    make_engine,
    make_step,
    make_submission,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, Outcome, Reply

NEARLY_LINEAR = 2.6

#: A logarithm, and what is done per event anyway.
HARDLY = 1.15

Action = Callable[[], object]


def quick(start: StartRequest) -> Outcome:
    return Reply("v", 1.0, num_pieces=1)


def make_driver(*, max_requests: int = 10_000, plays: bool = True) -> CoreDriver:
    """Return a driver with one engine on which all fits; ``plays``: it replies by itself."""
    engine = make_engine(
        capacity_tokens=10**9, latency_capacity_tokens=10**9, max_requests=max_requests
    )
    return CoreDriver(engine, behaviour=quick if plays else None)


def chain(number: int) -> list[NodeSpec]:
    """Return steps that each read the one before."""
    return [make_step(f"v{i}", *([f"v{i - 1}"] if i else []), prompt="p") for i in range(number)]


def fan_out(number: int) -> list[NodeSpec]:
    """Return steps that all read one variable."""
    return [make_step(f"v{i}", "x", prompt="p") for i in range(number)]


def map_reduce(number: int) -> list[NodeSpec]:
    """Return steps side by side, and one that reads them all."""
    maps = [make_step(f"v{i}", prompt="p") for i in range(number - 1)]
    return [*maps, make_step("out", *(step.name for step in maps))]


def ladder(number: int) -> list[NodeSpec]:
    """Return pairs of steps of which each reads both of the pair before."""
    nodes: list[NodeSpec] = []
    for i in range(number // 2):
        before = [f"a{i - 1}", f"b{i - 1}"] if i else []
        nodes += [make_step(f"a{i}", *before, prompt="p"), make_step(f"b{i}", *before, prompt="p")]
    return nodes


def dense(number: int, *, falling: bool) -> list[NodeSpec]:
    """Return steps that each read all before them, in one order of the inputs or the other."""
    nodes: list[NodeSpec] = []
    for i in range(number):
        inputs = [f"v{j}" for j in range(i)]
        nodes.append(make_step(f"v{i}", *(reversed(inputs) if falling else inputs), prompt="p"))
    return nodes


def outputs(number: int) -> CallSpec:
    """Return one call with many outputs."""
    return make_call("c", "p", *(write(f"v{i}") for i in range(number)))


# --- sizes that must simply work -----------------------------------------------------------------
def test_chain_of_5000_calls_is_served() -> None:
    driver = make_driver()
    driver.submit(*chain(5000), wanted=[make_wanted("v4999", waiter="w")])
    driver.run()
    assert driver.answer("w").value == "v"
    assert driver.now_s == 5000.0


def test_5000_calls_side_by_side_are_served() -> None:
    driver = make_driver()
    driver.submit(*map_reduce(5001), wanted=[make_wanted("out", waiter="w")])
    driver.run()
    assert driver.answer("w").value == "v"
    assert driver.now_s == 2.0


def test_1000_calls_on_few_slots_are_served() -> None:
    driver = make_driver(max_requests=16)
    driver.submit(*map_reduce(1001), wanted=[make_wanted("out", waiter="w")])
    driver.run()
    assert driver.answer("w").value == "v"


def test_chain_of_5000_transforms_is_computed() -> None:
    driver = make_driver()
    nodes = [make_transform("t0", read("x"))]
    nodes += [make_transform(f"t{i}", read(f"t{i - 1}")) for i in range(1, 5000)]
    driver.submit(*nodes, variables={"x": None})
    driver.set("x", "text")
    assert driver.variable("t4999").value == "text"


def test_failure_travels_down_a_chain_of_5000_calls() -> None:
    driver = make_driver(plays=False)
    driver.submit(*chain(5000), wanted=[make_wanted("v4999", waiter="w")])
    driver.fail("v0")
    failure = driver.answer("w").failure
    assert failure is not None
    assert failure.origin == "v0"
    assert driver.coordinator.num_unfinished_calls == 0


def test_cancellation_travels_up_a_chain_of_5000_calls() -> None:
    driver = make_driver(plays=False)
    driver.submit(*chain(5000), wanted=[make_wanted("v4999", waiter="w")])
    driver.cancel("v4999")
    assert driver.aborted == ["s.v0#0~1"]
    assert driver.coordinator.num_unfinished_calls == 0


def test_cycle_of_5000_calls_is_refused() -> None:
    nodes = chain(5000)
    nodes[0] = make_step("v0", "v4999", prompt="p")
    with pytest.raises(RequestError) as caught:
        SessionGraph(SESSION).plan(make_submission(*nodes), max_nodes=10_000)
    assert caught.value.code == "cycle_in_graph"


def test_5000_waiters_of_one_variable_are_answered() -> None:
    driver = make_driver(plays=False)
    driver.submit(make_step("a"))
    for number in range(5000):
        driver.get("a", f"w{number}")
    driver.finish("a", "v")
    assert len(driver.answers) == 5000


def test_call_with_5000_inputs_is_served() -> None:
    names = [f"x{i}" for i in range(5000)]
    driver = make_driver()
    driver.submit(
        make_step("a", *names), variables=dict.fromkeys(names, "v"), wanted=[make_wanted("a")]
    )
    driver.run()
    assert driver.variable("a").state is VariableState.READY


# --- costs ---------------------------------------------------------------------------------------
def submitting(nodes: Callable[[int], list[NodeSpec]], *wanted: str) -> Callable[[int], Action]:
    """Return an action that submits; ``{last}`` in a wanted name is the number of the last."""

    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        submission = make_submission(
            *nodes(number),
            variables={"x": None},
            wanted=[make_wanted(name.format(last=number - 1), LATENCY) for name in wanted],
        )
        return lambda: driver.send(submission)

    return prepare


def submitting_all_wanted(
    nodes: Callable[[int], list[NodeSpec]], *, is_reversed: bool = False
) -> Callable[[int], Action]:
    """Return an action that submits with every variable wanted under LATENCY."""

    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        specs = nodes(number)
        names = [spec.name for spec in specs]
        if is_reversed:
            names.reverse()
        submission = make_submission(
            *specs, variables={"x": None}, wanted=[make_wanted(name, LATENCY) for name in names]
        )
        return lambda: driver.send(submission)

    return prepare


def playing(nodes: Callable[[int], list[NodeSpec]], max_requests: int) -> Callable[[int], Action]:
    """Return an action that plays a submitted program to its end."""

    def prepare(number: int) -> Action:
        driver = make_driver(max_requests=max_requests)
        specs = nodes(number)
        wanted = [make_wanted(specs[-1].name, LATENCY)]
        driver.submit(*specs, variables={"x": "v"}, wanted=wanted)
        return driver.run

    return prepare


COSTS = {
    "submit a chain": (submitting(chain, "v{last}"), 300),
    "submit a fan-out": (submitting(fan_out, "v{last}"), 300),
    "submit a map-reduce": (submitting(map_reduce, "out"), 300),
    "submit a ladder": (submitting(ladder, "a0"), 300),
    "submit a chain, all wanted": (submitting_all_wanted(chain), 300),
    "submit a chain, all wanted, last first": (submitting_all_wanted(chain, is_reversed=True), 300),
    "submit a fan-out, all wanted": (submitting_all_wanted(fan_out), 300),
    "submit a ladder, all wanted": (submitting_all_wanted(ladder), 300),
    "submit a ladder, all wanted, last first": (
        submitting_all_wanted(ladder, is_reversed=True),
        300,
    ),
    "play a chain": (playing(chain, 16), 200),
    "play a wide map-reduce on few slots": (playing(map_reduce, 4), 200),
    "play a wide map-reduce on many slots": (playing(map_reduce, 10_000), 200),
}


@pytest.mark.parametrize(("prepare", "number"), COSTS.values(), ids=COSTS)
def test_cost_is_nearly_linear_in_the_number_of_calls(
    prepare: Callable[[int], Action], number: int
) -> None:
    assert growth(prepare, number) < NEARLY_LINEAR


@pytest.mark.parametrize("falling", [False, True])
def test_cost_of_a_dense_graph_is_nearly_linear_in_its_edges(falling: bool) -> None:
    # Twice as many nodes are four times as many edges.
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        submission = make_submission(*dense(number, falling=falling))
        return lambda: driver.send(submission)

    assert growth(prepare, 40) < 2 * NEARLY_LINEAR


def test_cost_of_a_call_of_many_outputs_is_nearly_linear_in_its_segments() -> None:
    # Each output has all before it in its prompt.
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        submission = make_submission(outputs(number))
        return lambda: driver.send(submission)

    assert growth(prepare, 30) < 2 * NEARLY_LINEAR


def test_cost_of_failing_a_chain_is_nearly_linear() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        driver.submit(*chain(number))
        return lambda: driver.fail("v0")

    assert growth(prepare, 300) < NEARLY_LINEAR


def test_cost_of_cancelling_a_chain_is_nearly_linear() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        driver.submit(*chain(number))
        return lambda: driver.cancel(f"v{number - 1}")

    assert growth(prepare, 300) < NEARLY_LINEAR


def test_cost_of_losing_an_engine_is_nearly_linear_in_what_ran() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        driver.submit(*fan_out(number), variables={"x": "v"})
        return lambda: driver.lose("e0")

    assert growth(prepare, 200) < NEARLY_LINEAR


def test_cost_of_growing_a_session_call_by_call_is_nearly_linear() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)
        driver.submit()

        def grow() -> None:
            for i, spec in enumerate(chain(number)):
                wanted = [make_wanted(f"v{i}", LATENCY)]
                driver.submit(spec, is_new=False, wanted=wanted)
                driver.finish(f"v{i}", "v")

        return grow

    assert growth(prepare, 100) < NEARLY_LINEAR


def test_cost_of_many_sessions_is_nearly_linear() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False)

        def live() -> None:
            for i in range(number):
                session = SessionId(f"s{i}")
                step = make_step("a", session=session)
                driver.send(make_submission(step, session=session, idempotency_key=f"k{i}"))
            for i in range(number):
                driver.close(SessionId(f"s{i}"))

        return live

    assert growth(prepare, 100) < NEARLY_LINEAR


def test_cost_of_one_decision_does_not_grow_with_the_queue() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False, max_requests=1)
        driver.submit(*(make_step(f"v{i}", prompt=f"{i}") for i in range(number)))
        return lambda: driver.finish("v0", "v")

    assert growth(prepare, 200) < 1.5


def test_cost_of_one_decision_does_not_grow_with_the_group() -> None:
    def prepare(number: int) -> Action:
        driver = make_driver(plays=False, max_requests=1)
        driver.submit(*map_reduce(number), wanted=[make_wanted("out", LATENCY)])
        return lambda: driver.finish("v0", "v")

    assert growth(prepare, 200) < 1.5


def cluster(number: int, *, max_requests: int) -> CoreDriver:
    """Return a driver with so many engines, each with room for the tokens of four requests."""
    driver = CoreDriver(
        *(
            make_engine(f"e{i}", capacity_tokens=4 * 116, max_requests=max_requests)
            for i in range(number)
        )
    )
    # 100 tokens of prompt and 16 of output each.
    driver.submit(*(make_step(f"v{i}", prompt=f"{i:400}") for i in range(8 * number)))
    assert len(driver.running) == 4 * number
    return driver


@pytest.mark.parametrize("max_requests", [4, 100], ids=["slots run out", "memory runs out"])
def test_cost_of_one_decision_hardly_grows_with_the_engines(max_requests: int) -> None:
    def prepare(number: int) -> Action:
        driver = cluster(number, max_requests=max_requests)
        driver.finish("v0", "v")  # what is sorted is sorted once
        return lambda: driver.finish("v1", "v")

    assert growth(prepare, 32) < HARDLY


def full_of_latency(placement: PlacementName, num_engines: int, num_waiting: int) -> CoreDriver:
    """Return a driver whose engines have slots and memory, but no latency capacity left.

    By the paper's rule further latency-sensitive calls wait for it; with ``cost`` only calls that
    nobody waits for do.
    """
    driver = CoreDriver(
        *(
            make_engine(f"e{i}", capacity_tokens=10**6, latency_capacity_tokens=4 * 116)
            for i in range(num_engines)
        ),
        config=CoreConfig(scheduler=SchedulerConfig(placement=placement)),
    )
    running = [f"v{i}" for i in range(4 * num_engines)]
    waiting = [f"w{i}" for i in range(num_waiting)]
    driver.submit(
        *(make_step(name, prompt=f"{name:400}") for name in (*running, *waiting)),
        wanted=[
            *(make_wanted(name, LATENCY) for name in running),
            *(make_wanted(name, WAITS[placement]) for name in waiting),
        ],
    )
    assert driver.running_outputs == running
    return driver


def one_more(driver: CoreDriver, name: str) -> Action:
    """Return an action that submits one more call that waits for the latency capacity."""
    session = SessionId(name)
    step = make_step("v", prompt=f"{name:400}", session=session)
    criteria = WAITS[driver.config.scheduler.placement]
    wanted = [make_wanted("v", criteria, session=session)]
    submission = make_submission(step, session=session, wanted=wanted)
    return lambda: driver.send(submission)


#: What calls are for that wait for the latency capacity, by placement.
WAITS: dict[PlacementName, Criteria] = {"paper": LATENCY, "cost": THROUGHPUT}
by_both = pytest.mark.parametrize("placement", WAITS)


@by_both
def test_cost_of_a_submit_hardly_grows_with_full_engines(placement: PlacementName) -> None:
    def prepare(number: int) -> Action:
        driver = full_of_latency(placement, number, 8)
        one_more(driver, "first")()
        return one_more(driver, "second")

    assert growth(prepare, 32) < HARDLY


@by_both
def test_cost_of_a_submit_does_not_grow_with_those_who_wait_for_the_latency_capacity(
    placement: PlacementName,
) -> None:
    def prepare(number: int) -> Action:
        driver = full_of_latency(placement, 8, number)
        one_more(driver, "first")()
        return one_more(driver, "second")

    assert growth(prepare, 70) < 1.1


@by_both
def test_nothing_is_looked_at_again_when_nothing_has_changed(placement: PlacementName) -> None:
    driver = full_of_latency(placement, 8, 70)
    driver.get("v0", "w")
    assert count_steps(lambda: driver.get("v0", "other")) < 100


@by_both
def test_cost_of_what_a_finished_call_lets_in_hardly_grows_with_full_engines(
    placement: PlacementName,
) -> None:
    def prepare(number: int) -> Action:
        driver = full_of_latency(placement, number, 70)
        driver.finish("v0", "v")
        return lambda: driver.finish("v1", "v")

    assert growth(prepare, 32) < HARDLY


# --- memory --------------------------------------------------------------------------------------
def peak_bytes(action: Action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_failed_chain_does_not_fill_the_memory() -> None:
    driver = make_driver(plays=False)
    driver.submit(*chain(3000))
    assert peak_bytes(lambda: driver.fail("v0")) < 8 * 2**20


def test_call_of_too_many_outputs_is_refused_before_it_is_unfolded() -> None:
    submission = make_submission(outputs(2000))
    graph = SessionGraph(SESSION)

    def plan() -> None:
        with pytest.raises(RequestError):
            graph.plan(submission, max_nodes=100)

    assert peak_bytes(plan) < 4 * 2**20


def test_call_of_many_outputs_does_not_fill_the_memory() -> None:
    submission = make_submission(outputs(2000))
    graph = SessionGraph(SESSION)

    def plan() -> None:
        with contextlib.suppress(RequestError):
            graph.plan(submission, max_nodes=10_000)

    assert peak_bytes(plan) < 16 * 2**20
