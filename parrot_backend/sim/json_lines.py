"""Files of one JSON object a line: read lazily with an account of bad lines, written line by line.

Names that end in ``.gz`` are compressed.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

Item = TypeVar("Item")

#: A line as it was read; values are still to be checked.
Row = Mapping[str, object]

#: Bad lines that are kept with their messages; more are only counted.
MAX_KEPT_LINES = 1000

#: A longer line is bad: it is not read into memory as a whole.
MAX_LINE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out.

    Attributes:
        number: Of the line, from 1 on.
        message: What is wrong with it.
    """

    number: int
    message: str


@dataclass(slots=True)
class ReadReport:
    """What became of the lines; it grows while they are read.

    Attributes:
        num_lines: Lines so far, empty ones too, which mean nothing.
        num_read: Lines that gave something.
        num_bad: Lines that were left out.
        bad: The first of them.
        ignored_fields: Names of fields that mean nothing here, with how many lines had them.
    """

    num_lines: int = 0
    num_read: int = 0
    num_bad: int = 0
    bad: list[BadLine] = field(default_factory=list)
    ignored_fields: dict[str, int] = field(default_factory=dict)

    def leave_out(self, message: str) -> None:
        """Count the present line as bad."""
        self.num_bad += 1
        if len(self.bad) < MAX_KEPT_LINES:
            self.bad.append(BadLine(self.num_lines, message))

    def ignore(self, names: Iterable[str]) -> None:
        """Count fields that were not looked at."""
        for name in names:
            self.ignored_fields[name] = self.ignored_fields.get(name, 0) + 1

    def __str__(self) -> str:
        lines = [f"{self.num_lines} lines: {self.num_read} read, {self.num_bad} bad"]
        lines += [f"line {bad.number}: {bad.message}" for bad in self.bad]
        if self.num_bad > len(self.bad):
            lines.append(f"and {self.num_bad - len(self.bad)} more bad lines")
        lines += [
            f"field {name!r} was ignored in {count} lines"
            for name, count in self.ignored_fields.items()
        ]
        return "\n".join(lines)


class BadRowError(ValueError):
    """A line is JSON, but not what is expected."""


def read_rows(
    path: Path, take: Callable[[Row], Item], report: ReadReport
) -> Generator[Item, None, None]:
    """Return what the lines of a file mean, one by one.

    A compressed file that breaks off is read as far as it goes; the report says where that is.

    Args:
        path: The file; it is closed when the last line was drawn, or the iterator is closed.
        take: Makes something of a line, or raises :class:`BadRowError`.
        report: Is told of every line.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        with _open(path, "rb") as lines:
            yield from parse_rows(_bounded(lines), take, report)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        # Whoever wrote it was killed, perhaps; what came before is whole.
        report.num_lines += 1
        report.leave_out(f"the compressed file ends here: {error}")


def parse_rows(
    lines: Iterable[bytes], take: Callable[[Row], Item], report: ReadReport
) -> Iterator[Item]:
    """Return what lines mean; see :func:`read_rows`."""
    for line in lines:
        report.num_lines += 1
        if not line.strip():
            continue
        try:
            item = take(_object(line))
        except BadRowError as error:
            report.leave_out(str(error))
            continue
        report.num_read += 1
        yield item


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write a line for each row as they come, and return how many.

    Whatever ends it early, an interrupt too, leaves whole lines in the file: those so far.

    Raises:
        OSError: The file cannot be written.
    """
    num_rows = 0
    with _open(path, "wb") as out:
        for row in rows:
            out.write(json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            num_rows += 1
    return num_rows


def whole_number(row: Row, name: str, least: int, most: int) -> int:
    """Return a field that must be a whole number within bounds.

    Raises:
        BadRowError: It is not.
    """
    return checked_whole(row.get(name), name, least, most)


def checked_whole(value: object, name: str, least: int, most: int) -> int:
    """Return a value that must be a whole number within bounds.

    Raises:
        BadRowError: It is not.
    """
    if type(value) is int and least <= value <= most:
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRowError(
            f"{name} must be a whole number from {least} to {most}, not {shown(value)}"
        )
    return value


def number(row: Row, name: str, default: float | None = None) -> float:
    """Return a field that must be a number, finite and not negative.

    Raises:
        BadRowError: It is not.
    """
    value = row.get(name, default)
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 <= value <= 1e15
        or not math.isfinite(value)
    ):
        raise BadRowError(f"{name} must be a number from 0 on, not {shown(value)}")
    return float(value)


def string(row: Row, name: str, default: str | None = None) -> str:
    """Return a field that must be a text.

    Raises:
        BadRowError: It is not.
    """
    value = row.get(name, default)
    if not isinstance(value, str):
        raise BadRowError(f"{name} must be a text, not {shown(value)}")
    return value


def array(row: Row, name: str) -> list[object]:
    """Return a field that must be a list; one that is absent is empty.

    Raises:
        BadRowError: It is not a list.
    """
    value = row.get(name, [])
    if not isinstance(value, list):
        raise BadRowError(f"{name} must be a list, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """Return a value as a message shows it, cut to a length that a person reads."""
    return "missing" if value is None else repr(value)[:60]


def _object(line: bytes) -> Row:
    if len(line) > MAX_LINE_BYTES:
        raise BadRowError(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadRowError(f"no JSON object, but {shown(row)}")
    return row


def _bounded(lines: BinaryIO) -> Iterator[bytes]:
    """Return the lines of a file; of too long ones only the beginning, which is too long too."""
    while line := lines.readline(MAX_LINE_BYTES + 1):
        yield line
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = lines.readline(MAX_LINE_BYTES + 1)


def _open(path: Path, mode: str) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, mode))
    return cast(BinaryIO, path.open(mode))
