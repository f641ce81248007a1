"""Creating an environment, installing into it, and checking it."""

from __future__ import annotations

import subprocess
import sys
import time

from scripts.environments.explain import (
    SetupError,
    describe_failure,
    is_torch_missing,
    log_lines_of_last_command,
)
from scripts.environments.progress import run_logged
from scripts.environments.record import read_record, reason_to_start_afresh, write_record
from scripts.environments.stub_wheels import write_stub_wheels
from scripts.environments.table import CPU_ENGINE, Environment

# On two cores, installing this project took 60-77 s with pip 23.2, which Python 3.11 brings, and
# 36 s with pip 26.3. Getting the newer pip takes 1 s.
PIP_REQUIREMENT = "pip>=25.3"


def install(environment: Environment, torch_index_url: str) -> None:
    """Create the environment, install into it and check it.

    Raises:
        SetupError: a step failed; the message holds the end of the log and advice.
    """
    started_s = time.monotonic()
    create(environment)
    write_record(environment, "installing")
    try:
        upgrade_pip(environment)
        install_project(environment, torch_index_url)
        install_alone(environment)
        import_once(environment)
    except SetupError:
        write_record(environment, "failed")
        raise
    write_record(environment, "ready")
    engine = f" with {environment.engine}" if environment.engine else ""
    print(f"set-up: {environment.name} is ready{engine} ({time.monotonic() - started_s:.0f} s)")


def create(environment: Environment) -> None:
    """Make the environment, emptying one that cannot be built upon."""
    name = environment.name
    if not environment.folder.exists():
        engine = f" for the engine {environment.engine}" if environment.engine else ""
        print(f"set-up: creating {name} with Python {environment.python}{engine}")
    else:
        reason = reason_to_start_afresh(read_record(environment), environment)
        if reason is None:
            return
        print(f"set-up: emptying {name}: {reason}")
    result = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(environment.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise SetupError(
            f"{sys.executable} could not create {name}:\n{result.stdout}\n"
            "Some systems package this apart (Debian and Ubuntu: python3-venv)."
        )


def upgrade_pip(environment: Environment) -> None:
    """Install a pip whose resolver is quick."""
    command = pip_install(environment, PIP_REQUIREMENT)
    if run_logged(environment, command, "updating pip") != 0:
        raise SetupError(describe_failure(environment, log_lines_of_last_command(environment)))


def install_project(environment: Environment, torch_index_url: str) -> None:
    """Install the project, asking PyTorch's own index only where pip's indexes lack torch."""
    wanted = ("--editable", environment.project, *environment.requirements)
    command = pip_install(environment, "--no-compile", *wanted)
    if environment.engine == CPU_ENGINE:
        wheels, constraints = write_stub_wheels(environment.folder)
        command += ["--find-links", str(wheels), "--constraint", str(constraints)]
    if run_logged(environment, command, "installing") == 0:
        return
    lines = log_lines_of_last_command(environment)
    if environment.engine and torch_index_url and is_torch_missing(lines):
        command += ["--extra-index-url", torch_index_url]
        if run_logged(environment, command, "installing, with PyTorch's index") == 0:
            return
        lines = log_lines_of_last_command(environment)
    raise SetupError(describe_failure(environment, lines, torch_index_url))


def install_alone(environment: Environment) -> None:
    """Install what the table says without what it requires."""
    if not environment.alone:
        return
    command = pip_install(environment, "--no-compile", "--no-deps", *environment.alone)
    if run_logged(environment, command, f"installing {', '.join(environment.alone)}") != 0:
        raise SetupError(describe_failure(environment, log_lines_of_last_command(environment)))


def pip_install(environment: Environment, *arguments: str) -> list[str]:
    """Return the command that installs with the environment's pip."""
    return [
        *(str(environment.interpreter), "-m", "pip", "install"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *arguments,
    ]


def import_once(environment: Environment) -> None:
    """Import what is needed most, writing byte code, and fail where that fails."""
    code = f"import {', '.join(environment.imports)}"
    command = [str(environment.interpreter), "-c", code]
    if run_logged(environment, command, "checking that it imports") != 0:
        raise SetupError(describe_failure(environment, log_lines_of_last_command(environment)))
