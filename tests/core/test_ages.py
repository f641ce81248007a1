"""Which run is served first, where sessions are runs and where they are all that a user does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import Wanted
from parrot_backend.core.ids import SessionId, name_of
from parrot_backend.core.nodes import Request
from tests.core.test_annotating import chat, requests
from tests.helpers.agent_traffic import metagpt_calls
from tests.helpers.builders import make_engine, make_steps, make_submission, make_wanted, var
from tests.helpers.core_driver import CoreDriver

_UNSTATED = Criteria(CriteriaKind.UNSTATED)
_HEAVY = SessionId("heavy")
_SAID = "The keeper of the harbour writes down each arrival, the cargo and the captain's name."


def _driver(
    max_requests: int = 1, max_wait_s: float = 30.0, max_run_s: float = 600.0
) -> CoreDriver:
    scheduler = SchedulerConfig(placement="paper", max_wait_s=max_wait_s, max_run_s=max_run_s)
    big = 10**7
    engine = make_engine(
        capacity_tokens=big, latency_capacity_tokens=big, max_requests=max_requests
    )
    return CoreDriver(engine, config=CoreConfig(scheduler=scheduler))


def _ask(
    driver: CoreDriver, session: SessionId, name: str, *texts: str, is_run: bool = False
) -> Request:
    event = make_submission(
        chat(name, texts or ["Be brief.", f"Question {name}"], session),
        session=session,
        is_new=driver.coordinator.sessions.get(session) is None,
        wanted=[Wanted(var(name, session), _UNSTATED)],
    )
    driver.send(replace(event, discovers=True, is_run=is_run))
    return requests(driver, session)[name]


def _served(
    driver: CoreDriver, num_steps: int, *, is_run: bool, call_s: float = 0.0
) -> list[SessionId]:
    """Serve one call at a time while one session always has three; return whose they were."""
    for number in range(3):
        _ask(driver, _HEAVY, f"h{number}", is_run=is_run)
    for number in range(3):
        _ask(driver, SessionId(f"new{number}"), "c", is_run=is_run)
    served: list[SessionId] = []
    for step in range(num_steps):
        driver.run_until(driver.now_s + call_s)
        ((attempt, log),) = driver.running.items()
        session, name = log.start.session, name_of(driver.request_of(attempt).output)
        driver.finish(name, "ok", session=session)
        served.append(session)
        if session == _HEAVY:
            _ask(driver, _HEAVY, f"more{step}", is_run=is_run)
    return served


def test_who_always_has_a_call_waiting_is_not_served_before_all_others() -> None:
    assert _served(_driver(), 8, is_run=False) == [
        *(_HEAVY, _HEAVY, _HEAVY),
        *(SessionId(f"new{number}") for number in range(3)),
        *(_HEAVY, _HEAVY),
    ]


def test_a_run_goes_before_those_that_began_later() -> None:
    assert _served(_driver(), 8, is_run=True) == [_HEAVY] * 8


@pytest.mark.parametrize(("max_run_s", "num_before"), [(0.0, 4), (50.0, 9), (10_000.0, 20)])
def test_a_run_that_never_ends_is_not_served_for_ever(max_run_s: float, num_before: int) -> None:
    driver = _driver(max_run_s=max_run_s)
    # Its calls wait for 24 s at most, and so never get old by themselves; those of others do.
    served = _served(driver, 20, is_run=True, call_s=8.0)
    num_heavy = next((n for n, whose in enumerate(served) if whose != _HEAVY), len(served))
    assert num_heavy == num_before


def test_the_calls_of_a_run_follow_each_other_when_all_have_waited_for_long() -> None:
    driver = _driver()
    for name in "abc":
        session = SessionId(name)
        steps = make_steps("one", "two: one", session=session)
        wanted = [make_wanted("two", session=session)]
        driver.submit(*steps, session=session, wanted=wanted)
    served = []
    for _ in range(6):
        driver.run_until(driver.now_s + 40.0)
        ((attempt, log),) = driver.running.items()
        name = name_of(driver.request_of(attempt).output)
        served.append(f"{log.start.session} {name}")
        driver.finish(name, "ok", session=log.start.session)
    assert served == ["a one", "a two", "b one", "b two", "c one", "c two"]


def _play(driver: CoreDriver, session: SessionId, seed: int) -> list[int]:
    """Play a run of the coding task, and return the places of its calls."""
    calls, ended = list(metagpt_calls(3, seed=seed)), 0
    for number, call in enumerate(calls):
        for index in range(ended, call.waits):
            driver.finish(f"r{seed}c{index}", calls[index].reply, session=session)
        ended = max(ended, call.waits)
        _ask(driver, session, f"r{seed}c{number}", *call.texts)
    for index in range(ended, len(calls)):
        driver.finish(f"r{seed}c{index}", calls[index].reply, session=session)
    made = requests(driver, session)
    return [made[f"r{seed}c{number}"].session_order for number in range(len(calls))]


def test_each_run_in_a_session_has_a_place_of_its_own() -> None:
    driver = _driver(max_requests=64)

    first = _play(driver, _HEAVY, 1)
    other = _ask(driver, SessionId("other"), "c").session_order
    second = _play(driver, _HEAVY, 2)

    assert [len(set(places)) for places in (first, second)] == [1, 1]
    assert first[0] < other < second[0]


def test_calls_of_one_submit_have_one_place() -> None:
    driver = _driver()
    event = make_submission(
        *(chat(name, ["Be brief."], _HEAVY) for name in ("a", "b")), session=_HEAVY
    )
    driver.send(replace(event, discovers=True, is_run=False))

    assert len({request.session_order for request in requests(driver, _HEAVY).values()}) == 1


def _after_idling(idle_s: float, *, is_run: bool) -> tuple[int, int]:
    """Return the places of a call after its session was idle, and of one that came meanwhile."""
    driver = _driver(max_wait_s=30.0)
    _ask(driver, _HEAVY, "a", is_run=is_run)
    driver.finish("a", _SAID, session=_HEAVY)
    meanwhile = _ask(driver, SessionId("other"), "c").session_order
    driver.run_until(driver.now_s + idle_s)
    again = _ask(driver, _HEAVY, "b", "Be brief.", f"Go on: {_SAID}", is_run=is_run)
    assert again.found is not None
    assert list(again.found.reads) == [var("a", _HEAVY)]
    return again.session_order, meanwhile


def test_who_was_idle_for_long_begins_anew() -> None:
    for is_run in (True, False):
        again, meanwhile = _after_idling(29.0, is_run=is_run)
        assert again < meanwhile
        again, meanwhile = _after_idling(31.0, is_run=is_run)
        assert again > meanwhile


def test_a_session_with_something_unfinished_is_not_idle() -> None:
    driver = _driver()
    _ask(driver, _HEAVY, "a", is_run=True)
    driver.finish("a", _SAID, session=_HEAVY)
    first = _ask(driver, _HEAVY, "b", is_run=True)
    driver.run_until(driver.now_s + 100.0)

    assert _ask(driver, _HEAVY, "c", is_run=True).session_order == first.session_order


def test_a_graph_has_the_place_of_its_session() -> None:
    driver = _driver()
    names: Sequence[str] = ("a", "b: a", "c")
    driver.submit(*make_steps(*names), wanted=[make_wanted("b"), make_wanted("c")])
    nodes = driver.coordinator.session(SessionId("s")).graph.nodes.values()
    assert {node.session_order for node in nodes if isinstance(node, Request)} == {0}
