"""What is expected of paths and jobs, and how it follows graphs as they grow and requests end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import CoreConfig, OrderingName, SchedulerConfig
from parrot_backend.core.events import CallSpec, NodeSpec, RequestFinished, RequestUsage
from parrot_backend.core.ids import SessionId
from parrot_backend.core.nodes import Request
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import (
    SESSION,
    make_body,
    make_call,
    make_condition,
    make_engine,
    make_loop,
    make_map,
    make_step,
    make_submission,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, started

_ENGINE = make_engine(capacity_tokens=10**6, latency_capacity_tokens=10**6, max_requests=64)
_ONE_SLOT = make_engine(capacity_tokens=10**6, latency_capacity_tokens=10**6, max_requests=1)


def make_driver(*, has_slot: bool = True, ordering: OrderingName | None = None) -> CoreDriver:
    config = CoreConfig(scheduler=SchedulerConfig(ordering=ordering), tokens_per_char=1.0)
    return CoreDriver(_ENGINE if has_slot else _ONE_SLOT, config=config)


def step(
    output: str, *inputs: str, tokens: int = 100, chars: int = 256, session: SessionId = SESSION
) -> CallSpec:
    """Return a step that makes up to so many tokens of a constant text and inputs."""
    return make_step(output, *inputs, session=session, max_tokens=tokens, prompt="p" * chars)


def finish(driver: CoreDriver, output: str, tokens: int = 10, session: SessionId = SESSION) -> None:
    usage = RequestUsage(256, tokens)
    attempt = driver.attempt(output, session)
    driver.send(RequestFinished(attempt, "x" * tokens, None, "stop", usage))


def paths(driver: CoreDriver, *outputs: str) -> list[float]:
    return [round(driver.request(output).path_tokens, 2) for output in outputs]


# --- paths ---------------------------------------------------------------------------------------


def test_a_path_is_as_long_as_the_longest_way_in_tokens_not_in_calls() -> None:
    driver = make_driver()
    calls = [
        step("a", tokens=10),
        step("b", "a", tokens=20),
        step("c", "b", tokens=30),
        step("long", "a", tokens=400),
    ]
    driver.send(make_submission(*calls, wanted=[make_wanted("c"), make_wanted("long")]))
    # Of each prompt 256 characters are a token; what is read, so many as the output before.
    c, long = 30 + (256 + 20) / 256, 400 + (256 + 10) / 256
    b = 20 + (256 + 10) / 256 + c
    expected = [11 + long, b, c, long]
    assert paths(driver, "a", "b", "c", "long") == [round(each, 2) for each in expected]


def test_a_transform_takes_no_time_and_hands_on_the_path() -> None:
    driver = make_driver()
    driver.send(
        make_submission(
            step("a", tokens=10),
            make_transform("t", read("a")),
            step("b", "t", tokens=50),
            wanted=[make_wanted("b")],
        )
    )
    assert paths(driver, "a", "b") == [62.0, 51.0]


def test_a_call_that_is_added_later_lengthens_the_path_of_what_it_reads() -> None:
    driver = make_driver(has_slot=False, ordering="critical_path")
    first = [step("busy"), step("a", tokens=50), step("b", tokens=60)]
    driver.send(make_submission(*first, wanted=[make_wanted(n) for n in ("busy", "a", "b")]))
    more = make_submission(step("c", "a", tokens=50), is_new=False, wanted=[make_wanted("c")])
    driver.send(more)
    assert paths(driver, "a", "b")[0] > paths(driver, "a", "b")[1]
    finish(driver, "busy")
    assert driver.running_outputs == ["a"]


def test_what_a_map_brings_forth_counts_before_it_is_there_and_once_only() -> None:
    driver = make_driver()
    body = make_body("k", make_call("k", "p" * 256, read("item"), write("k", max_tokens=100)))
    calls: list[NodeSpec] = [
        step("a", tokens=10),
        make_map("m", "a", body),
        step("end", "m", tokens=20),
    ]
    driver.send(make_submission(*calls, wanted=[make_wanted("end")]))
    assert paths(driver, "a") == [11.0 + 100.0 + 21.0]
    usage = RequestUsage(256, 3)
    driver.send(RequestFinished(driver.attempt("a"), '["one", "two"]', None, "stop", usage))
    made = [n for n in driver.coordinator.session(SESSION).graph.nodes.values() if ":" in n.output]
    assert [round(node.path_tokens) for node in made if isinstance(node, Request)] == [122] * 2


def test_rounds_of_a_loop_lead_to_what_comes_after_it() -> None:
    driver = make_driver()
    body = make_body("n", make_call("n", "p" * 256, read("p"), write("n", max_tokens=100)))
    loop = make_loop("l", {"p": ("start", "n")}, body, make_condition("n", "contains", "stop"))
    calls: list[NodeSpec] = [loop, step("end", "l", tokens=20)]
    wanted = [make_wanted("end")]
    driver.send(make_submission(*calls, variables={"start": ""}, wanted=wanted))
    graph = driver.coordinator.session(SESSION).graph
    for _ in range(3):
        (node,) = [n for n in graph.nodes.values() if ":" in n.output and not n.has_ended]
        assert node.path_tokens == pytest.approx(101 + 21, abs=1.0)
        (attempt,) = driver.running
        driver.send(RequestFinished(attempt, "on", None, "stop", RequestUsage(256, 2)))


def test_a_forecast_that_is_there_when_a_call_becomes_ready_counts_from_then_on() -> None:
    driver = make_driver()
    driver.send(
        make_submission(step("a"), step("b", "a"), step("c", "b"), wanted=[make_wanted("c")])
    )
    for number in range(8):
        session = SessionId(f"s{number}")
        wanted = [make_wanted("b", session=session)]
        event = make_submission(
            step("b", "x", session=session), session=session, variables={"x": ""}, wanted=wanted
        )
        driver.send(event)
        finish(driver, "b", 7, session)
    before, own = driver.request("b").path_tokens, driver.request("b").work_tokens
    finish(driver, "a")
    after = driver.request("b")
    assert after.forecast is not None
    assert after.work_tokens == pytest.approx(own - 100 + 7, abs=1)
    assert after.path_tokens == pytest.approx(before - 100 + 7, abs=1)


@examples(100)
@given(
    st.lists(st.tuples(st.integers(1, 500), st.sets(st.integers(0, 11))), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_paths_are_the_longest_whatever_comes_in_which_submit(
    calls: list[tuple[int, set[int]]], num_submits: int
) -> None:
    """Against a search through the whole graph."""
    specs = [
        step(f"c{n}", *[f"c{i}" for i in sorted(reads) if i < n], tokens=tokens, chars=1)
        for n, (tokens, reads) in enumerate(calls)
    ]
    driver = make_driver()
    size = -(-len(specs) // num_submits)
    for begin in range(0, len(specs), size):
        part = specs[begin : begin + size]
        wanted = [make_wanted(spec.name) for spec in part]
        driver.send(make_submission(*part, is_new=begin == 0, wanted=wanted))
    longest: dict[int, float] = {}
    for n in reversed(range(len(calls))):
        behind = [longest[m] for m in range(n + 1, len(calls)) if n in calls[m][1]]
        longest[n] = driver.request(f"c{n}").work_tokens + max(behind, default=0.0)
    for n, expected in longest.items():
        assert driver.request(f"c{n}").path_tokens == pytest.approx(expected)


# --- jobs ----------------------------------------------------------------------------------------


def submit_job(driver: CoreDriver, name: str, num_calls: int, tokens: int = 100) -> None:
    session = SessionId(name)
    calls = [step(f"{name}{n}", tokens=tokens, session=session) for n in range(num_calls)]
    wanted = [make_wanted(call.name, session=session) for call in calls]
    driver.send(make_submission(*calls, session=session, wanted=wanted))


def serve_all(driver: CoreDriver) -> str:
    """Finish one request after the other; return the order in which they ran."""
    served = []
    while driver.running:
        (attempt,) = driver.running
        output = driver.request_of(attempt).output
        served.append(output.partition(".")[2])
        usage = RequestUsage(256, 100)
        driver.send(RequestFinished(attempt, "word", None, "stop", usage))
    return " ".join(served)


def test_the_job_with_less_to_come_is_served_first() -> None:
    driver = make_driver(has_slot=False, ordering="shortest_job")
    submit_job(driver, "x", 1)
    submit_job(driver, "a", 4)
    submit_job(driver, "b", 2)
    assert serve_all(driver) == "x0 b0 b1 a0 a1 a2 a3"


def test_a_job_that_has_shrunk_goes_before_a_new_one_of_its_first_size() -> None:
    driver = make_driver(has_slot=False, ordering="shortest_job")
    submit_job(driver, "a", 8)
    for number in range(6):
        finish(driver, f"a{number}", 100, SessionId("a"))
    submit_job(driver, "b", 4)
    assert serve_all(driver) == "a6 a7 b0 b1 b2 b3"


def test_a_job_that_grows_goes_behind() -> None:
    driver = make_driver(has_slot=False, ordering="shortest_job")
    submit_job(driver, "x", 1)
    submit_job(driver, "a", 1)
    submit_job(driver, "b", 2)
    session = SessionId("a")
    more = [step(f"more{n}", f"a{0}", tokens=400, session=session) for n in range(3)]
    wanted = [make_wanted(call.name, session=session) for call in more]
    driver.send(make_submission(*more, session=session, is_new=False, wanted=wanted))
    assert serve_all(driver).startswith("x0 b0 b1 a0")


def test_cancelled_work_is_not_to_come() -> None:
    driver = make_driver(has_slot=False, ordering="shortest_job")
    submit_job(driver, "x", 1)
    submit_job(driver, "a", 8)
    submit_job(driver, "b", 2)
    driver.cancel(*[f"a{n}" for n in range(1, 8)], session=SessionId("a"))
    assert serve_all(driver) == "x0 a0 b0 b1"


# --- attained service ----------------------------------------------------------------------------


def test_who_has_had_less_goes_first_by_attained_service() -> None:
    driver = make_driver(has_slot=False, ordering="attained_service")
    session = SessionId("a")
    chain = [
        step("a0", session=session),
        step("a1", "a0", session=session),
        step("a2", "a1", session=session),
    ]
    driver.send(
        make_submission(*chain, session=session, wanted=[make_wanted("a2", session=session)])
    )
    submit_job(driver, "b", 2)
    finish(driver, "a0", 300, session)  # one level down
    assert serve_all(driver) == "b0 b1 a1 a2"


def test_service_counts_along_the_longest_path_not_in_sum() -> None:
    driver = make_driver(ordering="attained_service")
    calls = [*[step(f"m{n}") for n in range(5)], step("r", *[f"m{n}" for n in range(5)])]
    driver.send(make_submission(*calls, wanted=[make_wanted("r")]))
    for number in range(5):
        finish(driver, f"m{number}", 10 * (number + 1))
    assert driver.request("r").attained_tokens == pytest.approx(51)


def test_service_is_handed_on_through_transforms() -> None:
    driver = make_driver(ordering="attained_service")
    chain = [f"t{n}" for n in range(50)]
    transforms = [
        make_transform(name, read(before))
        for before, name in zip(["a", *chain[:-1]], chain, strict=True)
    ]
    driver.send(
        make_submission(step("a"), *transforms, step("b", "t49"), wanted=[make_wanted("b")])
    )
    finish(driver, "a", 30)
    assert driver.request("b").attained_tokens == pytest.approx(31)


def test_a_call_of_which_nothing_is_known_goes_on_from_its_program() -> None:
    driver = make_driver(ordering="attained_service")
    driver.send(make_submission(step("a"), wanted=[make_wanted("a")]))
    finish(driver, "a", 30)
    driver.send(make_submission(step("b"), is_new=False, wanted=[make_wanted("b")]))
    assert driver.request("b").attained_tokens == pytest.approx(31)
    other = SessionId("other")
    driver.send(
        make_submission(
            step("c", session=other), session=other, wanted=[make_wanted("c", session=other)]
        )
    )
    assert driver.request("c", other).attained_tokens == 0


@pytest.mark.parametrize(("discovers", "expected"), [(False, 31.0), (True, 0.0)])
def test_a_call_that_is_found_to_read_nothing_begins_anew_where_a_session_holds_many_runs(
    discovers: bool, expected: float
) -> None:
    driver = make_driver(ordering="attained_service")
    for name in ("a", "b"):
        event = make_submission(step(name), is_new=name == "a", wanted=[make_wanted(name)])
        driver.send(replace(event, is_run=False, discovers=discovers))
        if name == "a":
            finish(driver, "a", 30)
    assert driver.request("b").attained_tokens == pytest.approx(expected)


# --- tenants -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (SchedulerConfig(), "ababab"),
        (SchedulerConfig(tenant_weights={"a": 2.0}), "abaaba"),
        (SchedulerConfig(fair=False), "aaaabb"),
    ],
)
def test_tenants_take_turns(scheduler: SchedulerConfig, expected: str) -> None:
    driver = CoreDriver(_ONE_SLOT, config=CoreConfig(scheduler=scheduler, tokens_per_char=1.0))
    for tenant, name, number in [("a", "x", 1), ("a", "a", 4), ("b", "b", 4)]:
        session = SessionId(name)
        calls = [step(f"{name}{n}", session=session) for n in range(number)]
        wanted = [make_wanted(call.name, session=session) for call in calls]
        event = make_submission(*calls, session=session, wanted=wanted, tenant=tenant)
        assert len(started(driver.send(event))) == (name == "x")
    served = serve_all(driver).split()[1:]
    assert "".join(name[0] for name in served)[:6] == expected
