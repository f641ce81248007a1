"""``parrot calibrate``: asks a live server what its engines have learnt, and writes it to files."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import httpx
import typer
from pydantic import ValidationError

from parrot_backend.protocol import EngineList
from parrot_backend.sim.calibration import calibration_of_view, to_json
from parrot_backend.simulate.exits import EXIT_FAILED, EXIT_OK, UsageError

_TIMEOUT_S = 10.0


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
    num_written = 0
    for engine in engines:
        calibration = calibration_of_view(engine)
        if calibration is None:
            typer.echo(
                f"parrot: {engine.id} does not know yet how long its steps take: let it serve "
                "prompts and outputs for some seconds; engines without our plug-in never tell",
                err=True,
            )
            continue
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{quote(engine.id, safe='')}.json"
        path.write_text(to_json(calibration), encoding="utf-8")
        step_time = calibration.step_time
        typer.echo(
            f"{path}: {calibration.model}, learnt from {step_time.num_samples} steps, recent error "
            f"{step_time.error:.1%}"
        )
        num_written += 1
    if not engines:
        typer.echo("parrot: the server has no live engine", err=True)
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
