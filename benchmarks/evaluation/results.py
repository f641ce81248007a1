"""Measured points as rows of a table, and what is read from them."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation.experiment import Experiment, Measured, Point

TABLE = Path(__file__).parent.parent / "results" / "evaluation.csv"
_COLUMNS = ("experiment", "x", "system", "seed", "metric", "value")


@dataclass(slots=True)
class Results:
    """What was measured.

    Attributes:
        points: Each point with its quantities.
    """

    points: dict[Point, Measured]

    @classmethod
    def read(cls, path: Path = TABLE) -> Results:
        """Return what a table holds; nothing if there is none."""
        points: dict[Point, Measured] = {}
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    point = Point(row["experiment"], row["x"], row["system"], int(row["seed"]))
                    points.setdefault(point, {})[row["metric"]] = float(row["value"])
        return cls(points)

    def write(self, order: Iterable[Point], path: Path = TABLE) -> None:
        """Write the points in an order, so that equal results are equal files."""
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        with new.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for point in order:
                for metric, value in self.points.get(point, {}).items():
                    writer.writerow((*point, metric, f"{value:.6g}"))
        new.replace(path)  # whoever interrupts this keeps the old one

    def of(self, experiment: Experiment, x: str, system: str, metric: str) -> list[float]:
        """Return the values of all seeds."""
        return [
            self.points[point][metric]
            for point in (Point(experiment.name, x, system, s) for s in range(experiment.num_seeds))
            if metric in self.points.get(point, {})
        ]

    def median(self, experiment: Experiment, x: str, system: str, metric: str) -> float | None:
        """Return the median over the seeds; None if it was not measured."""
        values = self.of(experiment, x, system, metric)
        return statistics.median(values) if values else None

    def metrics(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the quantities of an experiment, in the order in which it measures them."""
        found: dict[str, None] = {}
        for measured in self._of(experiment.name):
            found.update(dict.fromkeys(measured))
        return tuple(found)

    def _of(self, name: str) -> Iterator[Mapping[str, float]]:
        return (measured for point, measured in self.points.items() if point.experiment == name)
