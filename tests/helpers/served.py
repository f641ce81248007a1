"""`parrot serve` as a process of its own, for tests that talk to it over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Environment variable that names the interpreter of servers; ours if it is not set.
SERVER_PYTHON = "PARROT_TEST_SERVER_PYTHON"

#: Texts of two runs are compared, and shared attention rounds by who runs beside whom.
_REPEATABLE = ("--no-shared-attention",)


@contextmanager
def parrot_serve(*options: str, python: str | None = None) -> Iterator[str]:
    """Start a server on a free port; yield its URL; end it in good order.

    Args:
        options: Of ``parrot serve``; without ``--shared-attention`` that is off.
        python: The interpreter; None takes what ``SERVER_PYTHON`` says.
    """
    python = python or os.environ.get(SERVER_PYTHON) or sys.executable
    command = [python, "-m", "parrot_backend", "serve", "--port", "0", *_REPEATABLE, *options]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if "ready at" in line:
                break
        else:
            raise AssertionError("the server did not start:\n" + "".join(said[-20:]))
        # A full pipe would stop the server.
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield line.split("ready at ")[1].split()[0]
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        drain.join()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
