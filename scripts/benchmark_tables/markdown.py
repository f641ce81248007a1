"""The newest rows of a benchmark, and what all tables are made of."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
Row = dict[str, str]


def results(name: str) -> Path:
    """Return where a benchmark leaves its rows."""
    return ROOT / "benchmarks" / "results" / f"{name}.csv"


def newest(name: str) -> list[Row]:
    """Return the rows of the last run of a benchmark."""
    with results(name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["commit"] == rows[-1]["commit"]]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["--"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(row: Row, name: str) -> str:
    """Return a median with its 20th and 80th percentile."""
    median, low, high = (float(row[f"{name}_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.2f} s [{low:.2f}, {high:.2f}]"


def ratio(row: Row, name: str) -> str:
    """Return a ratio with its 20th and 80th percentile."""
    median, low, high = (float(row[f"{name}_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def spread(row: Row, name: str) -> str:
    """Return a median with its 20th and 80th percentile, without a unit; a dash for nothing."""
    if not row[f"{name}_median"]:
        return "-"
    median, low, high = (float(row[f"{name}_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.3g} [{low:.3g}, {high:.3g}]"


def times_less(row: Row, base: Row, name: str) -> str:
    """Return how many times less a value is than in the row to compare with."""
    if not row[f"{name}_median"] or not base[f"{name}_median"]:
        return ""
    return f"{float(base[f'{name}_median']) / float(row[f'{name}_median']):.2f} x"


def source(row: Row, name: str) -> str:
    """Return the line that says where a table comes from."""
    what = f"`benchmarks/results/{name}.csv`, commit {row['commit']}, {row['cores']} cores"
    versions = f"vLLM {row['vllm']}, Python {row['python']}"
    return f"\n\nSource: {what} of {row['cpu']}, {versions}, {row['time_utc'][:10]}.\n"


def replace(page: Path, mark: str, text: str) -> None:
    """Replace what stands between the two markers of a name.

    Raises:
        ValueError: The page has no such markers.
    """
    before = page.read_text()
    begin, end = f"<!-- {mark} -->", f"<!-- end {mark} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"{page.name} has no markers for {mark}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", before))
