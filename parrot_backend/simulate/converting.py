"""``parrot trace convert``: the programs of a recording, by lengths and times, as a trace.

The recording is replayed, and each session is looked at just before it may be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.events import SessionClosed, SessionTimer, TimerFired
from parrot_backend.core.ids import SessionId, name_of
from parrot_backend.core.nodes import Request
from parrot_backend.core.prompt import InPlace, Input
from parrot_backend.core.recording import RecordedStep
from parrot_backend.core.session import Session
from parrot_backend.protocol import SessionView
from parrot_backend.server.views import session_to_view
from parrot_backend.sim.from_sessions import SeenSession, arrivals_of, unfinished
from parrot_backend.sim.recording import RecordingError, read_recording, replay
from parrot_backend.sim.shared_beginnings import RecordedPart
from parrot_backend.sim.traces import write_programs
from parrot_backend.simulate.exits import EXIT_FAILED, EXIT_OK


def convert(recording: Path, out: Path, round_trip_s: float) -> int:
    """Write a recording's programs as a trace and return the exit status.

    Args:
        recording: Of ``parrot serve --record``.
        out: A new file.
        round_trip_s: Of the clients that were recorded.

    Raises:
        RecordingError: The recording cannot be read.
        OSError: A file cannot be read or written, or the new one is there already.
    """
    seen = _Seen()
    try:
        with recording.open(encoding="utf-8", errors="surrogatepass") as lines:
            config, steps = read_recording(lines)
            replay(config, steps, seen.watch)
    except (RecordingError, UnicodeDecodeError) as error:
        raise RecordingError(f"{recording}: {error}") from error
    sessions = [one for one in seen.sessions() if _has_run(one.view)]
    num_left_out = seen.num_sessions - len(sessions)
    if num_left_out:
        typer.echo(f"parrot: {num_left_out} sessions without a finished call left out", err=True)
    num_unfinished = sum(len(unfinished(one.view)) for one in sessions)
    if num_unfinished:
        typer.echo(f"parrot: {num_unfinished} calls that did not finish left out", err=True)
    if not sessions:
        return EXIT_FAILED
    with out.open("xb"):
        pass
    num_jobs = write_programs(out, arrivals_of(sessions, round_trip_s))
    typer.echo(f"{num_jobs} jobs in {out}")
    return EXIT_OK


class _Seen:
    """Sessions of a replay, each as it was when it was looked at last."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, SeenSession] = {}
        self._core: Coordinator | None = None
        self._now_s = 0.0

    @property
    def num_sessions(self) -> int:
        """Sessions that were seen."""
        return len(self._sessions)

    def watch(self, core: Coordinator, step: RecordedStep) -> None:
        """Look at the session that a step may end."""
        self._core, self._now_s = core, step.now_s
        match step.event:
            case SessionClosed(name) | TimerFired(SessionTimer(name)):
                session = core.sessions.get(name)
                if session is not None:
                    self._look(session)
            case _:
                pass

    def sessions(self) -> Iterable[SeenSession]:
        """Return all sessions, those that are still there as they are at the end."""
        if self._core is not None:
            for session in self._core.sessions:
                self._look(session)
        return self._sessions.values()

    def _look(self, session: Session) -> None:
        view = session_to_view(session, self._now_s)
        prompts = {
            name_of(node.output): _recorded_parts(node)
            for node in session.graph.nodes.values()
            if isinstance(node, Request) and node.parts
        }
        self._sessions[session.id] = SeenSession(self._now_s, view, prompts, session.tenant)


def _recorded_parts(request: Request) -> tuple[RecordedPart, ...]:
    """Return a prompt; a value is told from what was made of one on its way."""
    found = []
    for segment, part in zip(request.segments, request.parts, strict=True):
        match segment:
            case InPlace(variable) | Input(variable, transforms=()):
                found.append(RecordedPart(part.text, name_of(variable)))
            case _:
                found.append(RecordedPart(part.text))
    return tuple(found)


def _has_run(view: SessionView) -> bool:
    return any(
        node.kind == "request"
        and node.state == "finished"
        and node.usage is not None
        and node.ready_s is not None
        for node in view.nodes
    )
