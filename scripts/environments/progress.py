"""Running a command with its output in a log and a line of progress on the terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO

from scripts.environments.table import ROOT, Environment

TTY_REFRESH_S = 0.2
PLAIN_REFRESH_S = 15.0


def run_logged(environment: Environment, command: Sequence[str], title: str) -> int:
    """Run `command` with its output in the log, show its progress, and return its exit status."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with environment.log.open("a") as log:
        print(f"$ {' '.join(command)}", file=log, flush=True)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            # The lock of the set-up is the child's, too.
            close_fds=False,
        )
        try:
            return show_progress(environment, process, title)
        except BaseException:
            process.terminate()
            process.wait()
            raise


def show_progress(environment: Environment, process: subprocess.Popen[bytes], title: str) -> int:
    """Show the elapsed time until the process ends, and return its exit status.

    On a terminal this is one line, written over and over; elsewhere, a new line now and then.
    """
    title = f"{environment.name}: {title}"
    is_terminal = sys.stdout.isatty()
    refresh_s = TTY_REFRESH_S if is_terminal else PLAIN_REFRESH_S
    started_s = time.monotonic()
    if not is_terminal:
        print(f"set-up: {title}", flush=True)
    with environment.log.open(errors="replace") as log:
        log.seek(0, os.SEEK_END)
        phases = follow_phases(log)
        while True:
            try:
                status = process.wait(timeout=refresh_s)
            except subprocess.TimeoutExpired:
                text = f"set-up: {title}, {time.monotonic() - started_s:.0f} s{next(phases)}"
                show_line(text, is_terminal)
                continue
            if is_terminal:
                show_line(f"set-up: {title}, {time.monotonic() - started_s:.0f} s", is_terminal)
                print()
            return status


def show_line(text: str, is_terminal: bool) -> None:
    """Print a line of progress; on a terminal it replaces the one before and never wraps."""
    if is_terminal:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]}\033[K", end="", flush=True)
    else:
        print(text, flush=True)


def follow_phases(log: IO[str]) -> Iterator[str]:
    """Yield, each time it is asked, what pip is doing according to the newest lines of its log."""
    num_found = 0
    phase = ""
    while True:
        for line in log:
            words = line.split()
            if line.startswith(("Collecting ", "Processing ")) and len(words) > 1:
                num_found += 1
                phase = f": {num_found} packages found, at {words[1].rsplit('/')[-1][:40]}"
            elif line.startswith("Installing collected packages"):
                phase = f": unpacking {num_found} packages"
        yield phase
