"""Signs of life: when they are told, and when not."""

from __future__ import annotations

from dataclasses import replace

from parrot_backend.core.criteria import UNANNOTATED
from parrot_backend.core.events import EngineReported
from parrot_backend.core.ids import AttemptId, EngineId, SessionId
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.life_signs import LifeSigns

TALKING = EngineRequest(AttemptId("s.a#0~1"), SessionId("s"), None, (), Sampling(), UNANNOTATED)
QUIET = replace(TALKING, quiet=True)


class Watched:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.told: list[EngineReported] = []
        self.signs = LifeSigns(EngineId("e"), self.told.append, lambda: self.now_s)

    def go_on(self, steps: int, step_s: float) -> int:
        """Make steps; return how many signs were told."""
        before = len(self.told)
        for _ in range(steps):
            self.now_s += step_s
            self.signs.progress()
        return len(self.told) - before


def test_without_quiet_requests_there_are_none():
    watched = Watched()
    assert watched.go_on(10, 1.0) == 0
    with watched.signs.during(TALKING):
        assert watched.go_on(10, 1.0) == 0


def test_they_say_nothing_but_that_the_engine_lives():
    watched = Watched()
    with watched.signs.during(QUIET):
        watched.go_on(1, 1.0)
    assert watched.told == [EngineReported(EngineId("e"))]


def test_each_slow_step_is_one_and_fast_ones_share_one():
    watched = Watched()
    with watched.signs.during(QUIET):
        assert watched.go_on(10, 1.0) == 10
        assert watched.go_on(1000, 0.01) <= 21


def test_time_alone_gives_none():
    watched = Watched()
    with watched.signs.during(QUIET):
        watched.now_s += 100.0
        assert watched.told == []


def test_they_end_with_the_last_quiet_request():
    watched = Watched()
    with watched.signs.during(QUIET):
        with watched.signs.during(QUIET):
            pass
        assert watched.go_on(1, 1.0) == 1
    assert watched.go_on(1, 1.0) == 0
