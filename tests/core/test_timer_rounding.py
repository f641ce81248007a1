"""Timers on a clock that stands still while they fire: a core that asks again would go round."""

from __future__ import annotations

import pytest

from parrot_backend.core.commands import SetTimer
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.events import (
    EngineJoined,
    EngineTimer,
    Event,
    GraphSubmitted,
    NoEngineTimer,
    SessionTimer,
    Timer,
    TimerFired,
)
from parrot_backend.core.ids import EngineId, SessionId
from tests.helpers.builders import make_engine, make_step, make_submission
from tests.helpers.core_driver import of_type

#: Sums of such times and limits round otherwise than differences, now and then.
TIMES_S = [0.1 * number for number in range(100)]

WORK = make_submission(make_step("a"))
IDLE = GraphSubmitted(SessionId("idle"), is_new=True)
JOINED = EngineJoined(make_engine("e0"))


@pytest.mark.parametrize(
    ("timer", "events"),
    [
        (EngineTimer(EngineId("e0")), [JOINED, WORK]),
        (NoEngineTimer(), [WORK]),
        (SessionTimer(SessionId("idle")), [IDLE]),
    ],
)
def test_a_timer_finds_due_what_it_was_asked_for(timer: Timer, events: list[Event]) -> None:
    for began_s in TIMES_S:
        core = Coordinator(CoreConfig())
        asked = [command for event in events for command in core.handle(event, began_s)]
        at_s = next(c.at_s for c in of_type(asked, SetTimer) if c.timer == timer)
        again = of_type(core.handle(TimerFired(timer), at_s), SetTimer)
        assert [command for command in again if command.timer == timer] == [], began_s
