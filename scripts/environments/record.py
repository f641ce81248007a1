"""What an environment holds, by the record that its last set-up wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from scripts.environments.table import ROOT, Environment


def read_record(environment: Environment) -> dict[str, Any]:
    """Return what the last set-up wrote, or nothing where there is no usable environment."""
    if not environment.interpreter.exists():
        return {}
    try:
        record = json.loads(environment.record.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(environment: Environment, state: str) -> None:
    """Note the environment and its state: `installing`, `failed` (pip rolled back) or `ready`."""
    environment.record.write_text(json.dumps(_entry(environment, state), indent=2) + "\n")


def is_ready(record: dict[str, Any], environment: Environment) -> bool:
    """Tell whether what is recorded is complete and is the environment that is wanted."""
    return record == _entry(environment, "ready") and _is_of(environment)


def reason_to_start_afresh(record: dict[str, Any], environment: Environment) -> str | None:
    """Say why what is there cannot be built upon, or return None where it can."""
    if record.get("state") == "installing":
        return "the last set-up was interrupted"
    wanted = _entry(environment, "ready")
    for field, label in (("root", "folder"), ("python", "Python"), ("engine", "engine")):
        if record and record.get(field) != wanted[field]:
            return f"it was made for another {label}"
    # Where a pin was taken away, pip would keep what it had selected.
    for field in ("requirements", "alone"):
        if record and record.get(field, []) != wanted[field]:
            return "it was made for other requirements"
    if not _is_of(environment):
        return f"it is not an environment of Python {environment.python}"
    return None


@contextlib.contextmanager
def only_one_setup() -> Iterator[None]:
    """Hold the checkout's set-up lock, so that two runs of make do not install at the same time.

    What is started meanwhile inherits the lock: where this process is killed, the next set-up
    waits for the pip that it left behind.
    """
    import fcntl

    folder = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _entry(environment: Environment, state: str) -> dict[str, Any]:
    # As it reads back: JSON has no tuples.
    entry: dict[str, Any] = json.loads(json.dumps({**asdict(environment), "state": state}))
    return entry


def _is_of(environment: Environment) -> bool:
    """Tell whether there is an environment of the Python version that is wanted."""
    libraries = environment.folder / "lib" / f"python{environment.python}"
    return environment.interpreter.exists() and libraries.is_dir()
