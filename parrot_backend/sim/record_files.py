"""Records of calls and jobs as CSV files, written as they come."""

from __future__ import annotations

import csv
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from parrot_backend.sim.capacity import Point
from parrot_backend.sim.records import CallRecord, JobRecord, RecordSink

_SETTING = ("rate_per_s", "engines")
_CALL_FIELDS = tuple(field.name for field in fields(CallRecord))
_JOB_FIELDS = tuple(field.name for field in fields(JobRecord))
_CALL, _JOB = attrgetter(*_CALL_FIELDS), attrgetter(*_JOB_FIELDS)


class RecordFiles:
    """``jobs.csv`` and ``calls.csv`` of a folder; a context manager.

    Args:
        folder: Where; it is made if it is not there. Older files of these names are replaced.

    Raises:
        OSError: The files cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._calls = _open(folder / "calls.csv", _CALL_FIELDS)
        self._jobs = _open(folder / "jobs.csv", _JOB_FIELDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.close()
        self._jobs.close()

    def sink(self, point: Point) -> RecordSink:
        """Return what takes the records of one setting."""
        return _Writer(point, self._calls, self._jobs)


class _Writer(RecordSink):
    """Writes the records of one setting."""

    def __init__(self, point: Point, calls: TextIO, jobs: TextIO) -> None:
        self._setting = (point.rate_per_s, point.num_engines)
        self._calls = csv.writer(calls, lineterminator="\n")
        self._jobs = csv.writer(jobs, lineterminator="\n")

    def call(self, record: CallRecord) -> None:
        """Write a call."""
        self._calls.writerow((*self._setting, *_CALL(record)))

    def job(self, record: JobRecord) -> None:
        """Write a job."""
        self._jobs.writerow((*self._setting, *_JOB(record)))


def _open(path: Path, names: tuple[str, ...]) -> TextIO:
    file = path.open("w", encoding="utf-8", newline="")
    csv.writer(file, lineterminator="\n").writerow((*_SETTING, *names))
    return file
