"""The paper's published figures; ``paper.csv`` has them as a table.

Seconds are those of the artifact's own runs where the paper prints ratios only: branch ``artifact``
of microsoft/ParrotServe, commits a272ccc and 748a10a. Figure numbers are the paper's.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_TABLE = Path(__file__).parent / "paper.csv"


class Published(NamedTuple):
    """One number of one figure.

    Attributes:
        figure: Such as ``11a``.
        x: The point on the figure's axis.
        system: Whose it is; ``a/b`` for how many times more ``a`` takes than ``b``.
        value: In ``unit``.
        unit: ``s``, ``ms``, ``ms/token`` or ``ratio``.
    """

    figure: str
    x: str
    system: str
    value: float
    unit: str


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Return all of them, in the order of the figures."""
    with _TABLE.open(newline="") as file:
        return tuple(
            Published(row["figure"], row["x"], row["system"], float(row["value"]), row["unit"])
            for row in csv.DictReader(file)
        )


def paper_value(figure: str, x: str, system: str, unit: str) -> float | None:
    """Return a number of a figure; None if the paper has none."""
    for entry in published():
        if (entry.figure, entry.x, entry.system, entry.unit) == (figure, x, system, unit):
            return entry.value
    return None


def paper_ratio(figure: str, x: str, slower: str, faster: str) -> float | None:
    """Return how many times more one system takes than the other, as printed or from values."""
    printed = paper_value(figure, x, f"{slower}/{faster}", "ratio")
    if printed is not None:
        return printed
    for unit in ("s", "ms/token", "ms"):
        values = paper_value(figure, x, slower, unit), paper_value(figure, x, faster, unit)
        if values[0] is not None and values[1] is not None:
            return values[0] / values[1]
    return None
