"""Which times of steps are learnt from."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_backend.core.step_time import StepTimeFitter, StepWork
from parrot_backend.vllm_plugin.step_times import StepTimes

DECODES = StepWork(decodes=2, context_tokens=100)
PROMPT = StepWork.prefill(50, 0)


class Noted(StepTimeFitter):
    """A fitter that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[StepWork, Any]] = []
        self.numbers: list[int] = []

    def observe(self, work: StepWork, elapsed_s: float, num_steps: int = 1) -> None:
        self.told.append((work, pytest.approx(elapsed_s)))
        self.numbers.append(num_steps)


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def times(noted: Noted) -> StepTimes:
    return StepTimes(noted)


def test_a_pause_of_an_idle_engine_is_no_part_of_a_step(noted: Noted, times: StepTimes) -> None:
    times.made(PROMPT, 10.0)
    times.done(10.5, 0, is_known=True)
    times.made(PROMPT, 99.0)
    times.done(99.25, 0, is_known=True)
    assert noted.told == [(PROMPT, 0.5), (PROMPT, 0.25)]


def test_what_passes_between_steps_belongs_to_the_second(noted: Noted, times: StepTimes) -> None:
    times.made(PROMPT, 10.0)
    times.done(10.5, 1, is_known=True)
    times.made(PROMPT, 10.7)
    times.done(11.0, 0, is_known=True)
    assert noted.told == [(PROMPT, 0.5), (PROMPT, 0.5)]


def test_steps_that_were_not_followed_are_no_part_of_the_next(
    noted: Noted, times: StepTimes
) -> None:
    times.made(PROMPT, 10.0)
    times.done(10.5, 1, is_known=True)
    times.lose_track()
    times.made(PROMPT, 99.0)
    times.done(99.25, 0, is_known=True)
    assert noted.told == [(PROMPT, 0.5), (PROMPT, 0.25)]


def test_overlapping_steps_begin_when_the_one_before_ends(noted: Noted, times: StepTimes) -> None:
    times.made(PROMPT, 10.0)
    times.made(PROMPT, 10.1)
    times.done(10.5, 0, is_known=True)
    times.done(10.75, 0, is_known=True)
    assert noted.told == [(PROMPT, 0.5), (PROMPT, 0.25)]


def test_steps_like_a_planned_one_count_with_it(noted: Noted, times: StepTimes) -> None:
    times.made(DECODES, 10.0)
    times.done(10.4, 2, is_known=True)
    times.done(10.5, 2, is_known=False)
    times.done(10.6, 2, is_known=False)
    assert noted.told == []
    times.made(PROMPT, 10.7)
    times.done(11.0, 0, is_known=True)
    assert noted.told == [(StepWork(decodes=2, context_tokens=102), 0.2), (PROMPT, 0.4)]
    assert noted.numbers == [3, 1]


def test_what_follows_the_end_of_a_request_is_not_like_it(noted: Noted, times: StepTimes) -> None:
    times.made(DECODES, 10.0)
    times.done(10.4, 2, is_known=True)
    times.done(10.6, 1, is_known=False)
    times.done(17.0, 1, is_known=False)
    assert noted.told == [(StepWork(decodes=2, context_tokens=101), 0.3)]
