"""Exit statuses of the simulator's commands, and how they end with a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from parrot_backend.sim.calibration import CalibrationError
from parrot_backend.sim.capacity import QuestionError
from parrot_backend.sim.engine_choice import EngineChoiceError
from parrot_backend.sim.recording import RecordingError
from parrot_backend.sim.study import StudyError
from parrot_backend.sim.workloads.checks import WorkloadError

EXIT_OK = 0
#: The command ran, and what came of it is a failure: a replay that decided otherwise, no engine
#: that can be calibrated.
EXIT_FAILED = 1
EXIT_USAGE = 2
#: 128 + SIGINT, as shells have it.
EXIT_INTERRUPTED = 130


class UsageError(ValueError):
    """Options do not go together, or one has a value that cannot be; the text says what."""


@contextmanager
def told_errors() -> Iterator[None]:
    """End the command where something cannot be as it was asked for, and say what.

    Raises:
        typer.Exit: With the status of the command.
    """
    try:
        yield
    except (
        *(CalibrationError, QuestionError, EngineChoiceError, RecordingError),
        *(StudyError, UsageError, WorkloadError),
    ) as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from error
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"parrot: {where}{error.strerror or error}", err=True)
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt as error:
        typer.echo("parrot: interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error
