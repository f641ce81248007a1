"""All experiments by name."""

from __future__ import annotations

from benchmarks.evaluation import (
    ablation,
    mixed,
    programming,
    routing,
    shared_prompts,
    summaries,
)
from benchmarks.evaluation.experiment import Experiment, Measured, Point

_ALL = (
    *summaries.EXPERIMENTS,
    *shared_prompts.EXPERIMENTS,
    *programming.EXPERIMENTS,
    *mixed.EXPERIMENTS,
    *routing.EXPERIMENTS,
    *ablation.EXPERIMENTS,
)

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}


def measure(point: Point) -> Measured:
    """Simulate one point."""
    return EXPERIMENTS[point.experiment].measure(point.x, point.system, point.seed)
