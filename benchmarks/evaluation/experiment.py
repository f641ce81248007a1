"""What an experiment is: points that are measured one by one, in any order, in any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

#: The system that is none: the least time that a program can take on idle engines.
BOUND = "bound"

#: Name of a measured quantity with its unit, such as ``job time (s)``, and its value.
Measured = dict[str, float]


class Point(NamedTuple):
    """One simulation."""

    experiment: str
    x: str
    system: str
    seed: int


@dataclass(frozen=True, slots=True)
class Experiment:
    """One figure of the report.

    Attributes:
        name: Such as ``11a``; the paper's number where the paper has it.
        title: What is shown.
        x_name: What the points differ in.
        systems: Who is compared, the baseline first.
        xs: The points.
        measure: Simulates a point and returns what was measured. The first quantity is the one that
            is plotted, and smaller is better.
        num_seeds: Simulations of each point; the report shows their median.
        skips: Points that cannot be measured, and why.
        remark: What the reader has to know: which inputs are known, and which are not.
        is_relative: The picture shows each point as a multiple of the first system's.
    """

    name: str
    title: str
    x_name: str
    systems: tuple[str, ...]
    xs: tuple[str, ...]
    measure: Callable[[str, str, int], Measured]
    num_seeds: int = 1
    skips: tuple[tuple[str, str, str], ...] = ()
    remark: str = ""
    is_relative: bool = False

    def points(self) -> list[Point]:
        """Return all simulations."""
        skipped = {(x, system) for x, system, _ in self.skips}
        return [
            Point(self.name, x, system, seed)
            for x in self.xs
            for system in self.systems
            for seed in range(self.num_seeds)
            if (x, system) not in skipped
        ]
