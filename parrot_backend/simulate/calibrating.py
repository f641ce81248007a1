"""``parrot calibrate``: what engines have learnt, asked of a live server or read in a recording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import httpx
import typer
from pydantic import ValidationError

from parrot_backend.protocol import EngineList
from parrot_backend.sim.calibration import Calibration, calibration_of_view, to_json
from parrot_backend.sim.recorded_calibration import calibrations_of
from parrot_backend.sim.recording import RecordingError, read_recording
from parrot_backend.simulate.exits import EXIT_FAILED, EXIT_OK, UsageError

_TIMEOUT_S = 10.0


def calibrate_recorded(recording: Path, folder: Path) -> int:
    """Write a file for each engine of a recorded run, and return the exit status.

    Args:
        recording: Of ``parrot serve --record``.
        folder: Where; it is made if it is not there.

    Raises:
        RecordingError: The recording cannot be read.
        OSError: A file cannot be read or written.
    """
    try:
        with recording.open(encoding="utf-8", errors="surrogatepass") as lines:
            found = calibrations_of(read_recording(lines)[1])
    except (RecordingError, UnicodeDecodeError) as error:
        raise RecordingError(f"{recording}: {error}") from error
    if not found:
        typer.echo("parrot: no engine has joined in this recording", err=True)
    return _write({str(engine): calibration for engine, calibration in found.items()}, folder)


def calibrate_from(
    url: str, folder: Path, client: httpx.Client | None = None, *, api_key: str | None = None
) -> int:
    """Write a file for each engine that knows its times, and return the exit status.

    Args:
        url: Of the server.
        folder: Where; it is made if it is not there.
        client: Asks; None for a new one.
        api_key: Of a server that wants one.

    Raises:
        UsageError: There is no such server.
        OSError: A file cannot be written.
    """
    engines = _ask(url, client, api_key).engines
    if not engines:
        typer.echo("parrot: the server has no live engine", err=True)
    return _write({engine.id: calibration_of_view(engine) for engine in engines}, folder)


def _write(calibrations: Mapping[str, Calibration | None], folder: Path) -> int:
    """Write a file for each engine that knows its times."""
    num_written = 0
    for engine, calibration in calibrations.items():
        if calibration is None:
            typer.echo(
                f"parrot: {engine} does not know yet how long its steps take: let it serve "
                "prompts and outputs for some seconds; engines without our plug-in never tell",
                err=True,
            )
            continue
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{quote(engine, safe='')}.json"
        path.write_text(to_json(calibration), encoding="utf-8")
        step_time = calibration.step_time
        typer.echo(
            f"{path}: {calibration.model}, learnt from {step_time.num_samples} steps, recent error "
            f"{step_time.error:.1%}"
        )
        num_written += 1
    return EXIT_OK if num_written else EXIT_FAILED


def _ask(url: str, client: httpx.Client | None, api_key: str | None) -> EngineList:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    address = f"{url.rstrip('/')}/v1/engines"
    try:
        with client or httpx.Client(timeout=_TIMEOUT_S) as asking:
            reply = asking.get(address, headers=headers)
        reply.raise_for_status()
        return EngineList.model_validate_json(reply.content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UsageError(f"{address}: {error}") from error
    except ValidationError as error:
        raise UsageError(f"{address} does not answer as a Parrot server of this version") from error
