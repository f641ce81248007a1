"""A run of the core as lines of JSON: its settings, then each event with what was decided. Pure.

Fed to a fresh core, the events of a recording must bring forth the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parrot_backend.core.commands import Command, StartRequest
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.event_codec import CodecError, Json, decode, encode
from parrot_backend.core.events import Event
from parrot_backend.core.ids import AttemptId, EngineId

#: Changes when older readers could not understand what is written.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One event that the core took in.

    Attributes:
        event: The event.
        now_s: When, on the clock of its shell.
        starts: Attempts that began thereby, and on which engine.
    """

    event: Event
    now_s: float
    starts: tuple[tuple[AttemptId, EngineId], ...]


def starts_of(commands: Iterable[Command]) -> tuple[tuple[AttemptId, EngineId], ...]:
    """Return which attempts begin where."""
    return tuple((c.attempt, c.engine) for c in commands if isinstance(c, StartRequest))


def header_of(config: CoreConfig) -> Json:
    """Return the first line of a recording."""
    return {"format": FORMAT, "config": encode(config)}


def line_of(event: Event, now_s: float, commands: Iterable[Command]) -> Json:
    """Return the line of one event."""
    line: dict[str, Json] = {"now_s": now_s, "event": encode(event)}
    starts = starts_of(commands)
    if starts:
        line["starts"] = encode(starts)
    return line


def read_header(header: Json) -> CoreConfig:
    """Return the settings that a recording was made with.

    Raises:
        CodecError: It is not the first line of a recording, or of one that is known here.
    """
    if not isinstance(header, dict) or "config" not in header:
        raise CodecError("this is not the first line of a recording")
    if header.get("format") != FORMAT:
        raise CodecError(f"the recording has the format {header.get('format')}, known is {FORMAT}")
    config = decode(CoreConfig, header["config"])
    assert isinstance(config, CoreConfig)
    return config


def read_line(line: Json) -> RecordedStep:
    """Return what one line says.

    Raises:
        CodecError: It is not a line of a recording.
    """
    if not isinstance(line, dict) or not {"now_s", "event"} <= line.keys():
        raise CodecError("this is not a line of a recording")
    return RecordedStep(
        decode(Event, line["event"]),
        decode(float, line["now_s"], "now_s"),
        decode(tuple[tuple[AttemptId, EngineId], ...], line.get("starts", []), "starts"),
    )


def differences(
    recorded: tuple[tuple[AttemptId, EngineId], ...],
    found: tuple[tuple[AttemptId, EngineId], ...],
) -> Iterator[str]:
    """Yield what is decided otherwise, in words."""
    then, now = dict(recorded), dict(found)
    for attempt in {**then, **now}:
        if then.get(attempt) != now.get(attempt):
            before = then.get(attempt, "nowhere")
            yield f"{attempt}: {before} when it was recorded, {now.get(attempt, 'nowhere')} now"
