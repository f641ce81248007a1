"""Recordings of a server's run, read and replayed: a fresh core must decide as it did then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from parrot_backend.core.config import CoreConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.event_codec import CodecError, Json
from parrot_backend.core.recording import (
    RecordedStep,
    differences,
    read_header,
    read_line,
    starts_of,
)
from parrot_backend.errors import ParrotError

_MAX_DIFFERENCES = 20


class RecordingError(Exception):
    """A recording cannot be read; the message names the line."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay.

    Attributes:
        num_events: Events that were replayed.
        num_starts: Attempts that began in the recording.
        num_different: Events at which other attempts began, or on other engines.
        different: The first of them, in words.
    """

    num_events: int
    num_starts: int
    num_different: int
    different: tuple[str, ...]


def read_recording(lines: Iterable[str]) -> tuple[CoreConfig, Iterator[RecordedStep]]:
    """Read a recording, line by line as its events are asked for.

    A last line without an end is left out: whoever wrote it was stopped in the middle.

    Args:
        lines: Those of the file.

    Returns:
        The settings of the core, and what it took in.

    Raises:
        RecordingError: A line is no part of a recording; also while the events are read.
    """
    source = iter(lines)
    first = next(source, "")
    try:
        config = read_header(_parse(first))
    except (CodecError, json.JSONDecodeError) as exc:
        raise RecordingError(f"line 1: {exc}") from exc
    return config, _steps(source)


def _steps(lines: Iterator[str]) -> Iterator[RecordedStep]:
    for number, line in enumerate(lines, start=2):
        if not line.endswith("\n"):
            return
        try:
            yield read_line(_parse(line))
        except (CodecError, json.JSONDecodeError) as exc:
            raise RecordingError(f"line {number}: {exc}") from exc


def _parse(line: str) -> Json:
    return json.loads(line)


def replay(
    config: CoreConfig,
    steps: Iterable[RecordedStep],
    watch: Callable[[Coordinator, RecordedStep], None] | None = None,
) -> Replay:
    """Feed what was recorded into a fresh core, and compare what it decides.

    Args:
        config: Settings of the core.
        steps: What it took in.
        watch: Sees the core before each step; it must only read.

    Raises:
        RecordingError: The core rejects what it once took in.
    """
    coordinator = Coordinator(config)
    num_events = num_starts = num_different = 0
    told: list[str] = []
    for step in steps:
        if watch is not None:
            watch(coordinator, step)
        try:
            commands = coordinator.handle(step.event, step.now_s)
        except ParrotError as exc:
            raise RecordingError(f"event {num_events + 1} was rejected: {exc}") from exc
        num_events += 1
        num_starts += len(step.starts)
        found = starts_of(commands)
        if found != step.starts:
            num_different += 1
            room = _MAX_DIFFERENCES - len(told)
            told += islice(differences(step.starts, found), room)
    return Replay(num_events, num_starts, num_different, tuple(told))
