"""What a recording tells of its engines, in the mean."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_backend.core.events import (
    EngineInfo,
    EngineJoined,
    EngineReported,
    Event,
    RequestFinished,
    RequestUsage,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.recording import RecordedStep
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.recorded_calibration import calibrations_of

E0, E1 = EngineId("e0"), EngineId("e1")


def step(event: Event, now_s: float = 0.0, *starts: tuple[str, EngineId]) -> RecordedStep:
    return RecordedStep(event, now_s, tuple((AttemptId(name), engine) for name, engine in starts))


def joined(engine: EngineId) -> RecordedStep:
    info = EngineInfo(engine, ("m",), 4096, 9600, 6144, 8, block_tokens=32, max_step_tokens=512)
    return step(EngineJoined(info))


def told(engine: EngineId, base_s: float, num_samples: int, slowdown: float = 1.0) -> RecordedStep:
    model = StepTimeModel(base_s, 1e-4, 1e-5, 0.0, 0.0, num_samples, 0.1, slowdown)
    return step(EngineReported(engine, step_time=model))


def finished(name: str, now_s: float, engine_s: float | None) -> RecordedStep:
    usage = RequestUsage(10, 5, engine_s=engine_s)
    return step(RequestFinished(AttemptId(name), "", None, "stop", usage), now_s)


def test_times_are_the_mean_over_the_steps_that_were_made() -> None:
    steps = [joined(E0), told(E0, 0.010, 100), told(E0, 0.020, 400), told(E1, 9.0, 50)]
    (found,) = calibrations_of(steps).values()
    assert found is not None
    assert round(found.step_time.base_s, 9) == 0.0175
    assert (found.step_time.num_samples, found.step_time.slowdown) == (400, 1.0)
    assert (found.block_tokens, found.max_step_tokens, found.max_requests) == (32, 512, 8)


def test_steps_that_were_held_up_are_in_the_mean() -> None:
    (found,) = calibrations_of([joined(E0), told(E0, 0.010, 100, slowdown=1.5)]).values()
    assert found is not None
    assert round(found.step_time.base_s, 9) == 0.015


def test_an_engine_is_told_to_be_slower_when_it_was() -> None:
    steps = [joined(E0), told(E0, 0.010, 100), step(EngineReported(E0), 50.0, ("a", E0))]
    steps += [replace(told(E0, 0.010, 200), now_s=55.0), replace(told(E0, 0.030, 300), now_s=80.0)]
    (found,) = calibrations_of(steps).values()
    assert found is not None
    (first_s, first), (later_s, later) = found.speeds
    assert (first_s, later_s) == (0.0, 24.0)
    assert later / first == pytest.approx(3.0, rel=0.01)
    assert found.step_time.base_s == pytest.approx(0.05 / 3)


def test_what_calls_take_beside_their_engine_is_told_by_their_times() -> None:
    starts = [("a", E0), ("b", E0), ("c", E0)]
    steps = [joined(E0), told(E0, 0.01, 100), step(EngineReported(E0), 1.0, *starts)]
    steps += [finished(name, 2.0 + 0.1 * n, 0.9) for n, (name, _) in enumerate(starts)]
    steps += [finished("unknown", 9.0, 0.1), step(EngineReported(E0), 3.0, ("d", E0))]
    steps += [finished("d", 9.0, None)]
    (found,) = calibrations_of(steps).values()
    assert found is not None
    assert round(found.call_overhead_s, 9) == 0.1
    assert round(found.server_call_s, 9) == 0.1


def test_an_engine_that_never_told_its_times_has_none() -> None:
    assert calibrations_of([joined(E0), joined(E1), told(E1, 0.01, 40)])[E0] is None
