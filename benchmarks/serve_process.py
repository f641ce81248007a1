"""``parrot serve`` as a process of its own, for benchmarks that measure it from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: How commands are called.
PARROT = (sys.executable, "-m", "parrot_backend")


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run ``parrot serve`` on a free port, and yield its URL.

    Args:
        *options: Of the command.

    Raises:
        RuntimeError: It does not start.
    """
    command = [*PARROT, "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if "ready at " in line:
                break
        else:
            raise RuntimeError("the server did not start:\n" + "".join(said[-20:]))
        # A full pipe would stop the server.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.split("ready at ")[1].split()[0]
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
