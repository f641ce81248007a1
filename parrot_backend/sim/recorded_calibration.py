"""What a recording tells of its engines: calibrations that hold for the whole of a run.

While a server runs, its engines tell again and again how long their steps take at that time. A
machine that others use, too, is now faster and now slower: what is asked of a live server holds for
its last steps, and the mean of all that was told for the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from itertools import pairwise

from parrot_backend.core.call_overhead import CallOverhead, CallOverheads
from parrot_backend.core.events import (
    EngineInfo,
    EngineJoined,
    EngineReported,
    RequestFinished,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.recording import RecordedStep
from parrot_backend.core.step_time import StepTimeModel, StepWork
from parrot_backend.sim.calibration import Calibration, calibration_of_info

#: What an engine's speed is told of: a step of decoding, as most are, and spans of time that have
#: some reports of an engine with work.
_TYPICAL_STEP = StepWork(decodes=2, context_tokens=1000)
_SPAN_S = 6.0


def calibrations_of(steps: Iterable[RecordedStep]) -> dict[EngineId, Calibration | None]:
    """Return the calibration of each engine that joined; None for one that never told its times.

    Args:
        steps: What the core took in.
    """
    seen = _Seen()
    for step in steps:
        seen.take(step)
    return {engine: seen.calibration(engine) for engine in seen.infos}


class _Seen:
    """Engines of a recording.

    Attributes:
        infos: What each said of itself when it joined.
    """

    def __init__(self) -> None:
        self.infos: dict[EngineId, EngineInfo] = {}
        self._told: dict[EngineId, list[tuple[float, StepTimeModel]]] = {}
        self._first_s: float | None = None
        self._overheads = CallOverheads(ageing=0.0)
        self._started: dict[AttemptId, tuple[EngineId, float]] = {}

    def take(self, step: RecordedStep) -> None:
        """Look at one event."""
        match step.event:
            case TokensGenerated():
                return  # decides nothing
            case EngineJoined(info):
                self.infos[info.engine] = info
            case EngineReported(engine, step_time=StepTimeModel() as model):
                told = self._told.setdefault(engine, [])
                told.append((step.now_s, model.in_the_mean()))
            case RequestFinished(attempt, usage=usage):
                started = self._started.pop(attempt, None)
                if started is not None:
                    took_s = step.now_s - started[1]
                    self._overheads.ended(started[0], attempt, took_s, usage.engine_s)
            case _:
                pass
        self._overheads.decided()
        if step.starts and self._first_s is None:
            self._first_s = step.now_s
        for attempt, engine in step.starts:
            self._started[attempt] = engine, step.now_s
            self._overheads.started(attempt)

    def calibration(self, engine: EngineId) -> Calibration | None:
        """Return what is known of an engine."""
        told = self._told.get(engine)
        if not told:
            return None
        overhead = self._overheads.of(engine) or CallOverhead(0.0, 0.0)
        mean = _mean([model for _, model in told])
        first_s = told[0][0] if self._first_s is None else self._first_s
        speeds = _speeds([(at_s - first_s, model) for at_s, model in told], mean)
        return calibration_of_info(self.infos[engine], overhead, mean, speeds)


def _speeds(
    told: list[tuple[float, StepTimeModel]], mean: StepTimeModel
) -> tuple[tuple[float, float], ...]:
    """Return how long steps took in each span of time in which anything was told, to the mean."""
    spans: dict[int, list[float]] = {}
    for at_s, model in told:
        # It was learnt before it was told.
        span = max(0, int((at_s - _SPAN_S / 2) // _SPAN_S))
        spans.setdefault(span, []).append(model.predict_s(_TYPICAL_STEP))
    mean_s = mean.predict_s(_TYPICAL_STEP)
    return tuple(
        (span * _SPAN_S, math.fsum(times_s) / len(times_s) / mean_s)
        for span, times_s in sorted(spans.items())
    )


def _mean(models: list[StepTimeModel]) -> StepTimeModel:
    """Return the mean of models, each weighed by the steps that were new in it."""
    numbers = [0, *(model.num_samples for model in models)]
    weights = [max(1, after - before) for before, after in pairwise(numbers)]
    total = sum(weights)
    means = {
        field.name: math.fsum(
            weight * getattr(model, field.name)
            for weight, model in zip(weights, models, strict=True)
        )
        / total
        for field in fields(StepTimeModel)
        if field.name != "num_samples"
    }
    return StepTimeModel(num_samples=numbers[-1], **means)
