"""A set-up that is ended from outside leaves no pip behind, or makes the next one wait for it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.environments.table import ROOT, Environment

# Its "pip" goes on until its input ends.
SCRIPT = """
import sys
from pathlib import Path
from scripts.environments import record, run
from scripts.environments.progress import run_logged
from scripts.environments.table import Environment

folder, name, *rest = sys.argv[1:]
record.ROOT = folder
wanted = Environment(name, (), (), "", (), "3.11", folder, "f0")
pip = [sys.executable, "-c", "import sys; sys.stdin.read()"]
run.environments = lambda: (wanted,)
run.install = lambda environment, _url: run_logged(environment, pip, "installing")
sys.exit(run.main([]))
"""


@contextmanager
def setting_up(environment: Environment) -> Iterator[subprocess.Popen[bytes]]:
    environment.folder.mkdir(parents=True)
    command = [sys.executable, "-c", SCRIPT, environment.root, environment.name]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"set-up: .venvs/framework: installing\n"
        try:
            yield process
        finally:
            process.stdin.close()


@contextmanager
def lock_of(folder: str) -> Iterator[int]:
    descriptor = os.open(Path(folder), os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_one_that_is_terminated_ends_what_it_started(wanted: Environment) -> None:
    with setting_up(wanted) as process, lock_of(wanted.root) as lock:
        process.terminate()
        assert process.wait() == 130
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_one_that_was_killed_left_behind_holds_the_lock(wanted: Environment) -> None:
    with lock_of(wanted.root) as lock:
        with setting_up(wanted) as process:
            process.kill()
            process.wait()
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)
