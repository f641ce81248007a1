"""What calls take beside their engine's time, learnt from calls that have ended."""

from __future__ import annotations

import random

import pytest

from parrot_backend.core.call_overhead import CallOverheads
from parrot_backend.core.ids import AttemptId, EngineId

ENGINE = EngineId("e")


def run_together(overheads: CallOverheads, *overheads_s: float) -> None:
    """Start calls together, and end them in another order."""
    overheads.decided()
    calls = [(AttemptId(f"r{number}~1"), each) for number, each in enumerate(overheads_s)]
    for attempt, _ in calls:
        overheads.started(attempt)
    random.Random(len(calls)).shuffle(calls)
    for attempt, overhead_s in calls:
        overheads.ended(ENGINE, attempt, 2.0 + overhead_s, 2.0)


def test_nothing_is_known_of_an_engine_that_has_told_nothing() -> None:
    overheads = CallOverheads()
    overheads.ended(ENGINE, AttemptId("r~1"), 1.0, None)
    assert overheads.of(ENGINE) is None


def test_a_lone_call_is_told_from_those_that_are_started_together() -> None:
    overheads = CallOverheads()
    for number in (1, 4, 1, 8, 1):
        run_together(overheads, *(0.007 + 0.004 * position for position in range(number)))
    found = overheads.of(ENGINE)
    assert found == pytest.approx((0.007, 0.004))


@pytest.mark.parametrize(
    ("overheads_s", "lone_s", "server_s"),
    [
        pytest.param([0.01], 0.01, 0.0, id="one tells nothing of others"),
        pytest.param([0.02, 0.01], 0.015, 0.0, id="later ones are quicker"),
        pytest.param([0.0, 0.03], 0.01, 0.01, id="the server's part is no more than the whole"),
    ],
)
def test_what_is_fitted_makes_sense(
    overheads_s: list[float], lone_s: float, server_s: float
) -> None:
    overheads = CallOverheads()
    run_together(overheads, *overheads_s)
    assert overheads.of(ENGINE) == pytest.approx((lone_s, server_s), rel=0.01)


def test_what_has_changed_is_followed() -> None:
    overheads = CallOverheads()
    for overhead_s in (0.05, 0.01):
        for _ in range(1500):
            run_together(overheads, overhead_s)
    found = overheads.of(ENGINE)
    assert found is not None
    assert found.lone_s == pytest.approx(0.01, rel=0.02)
