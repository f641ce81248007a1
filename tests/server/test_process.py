"""The server as a process of its own: where it listens, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server.programs import one_call

ROOT = Path(__file__).parents[2]


@dataclass
class ServerProcess:
    process: subprocess.Popen[str]
    url: str
    child_file: Path

    def signal(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def submit(self, **fields: Any) -> Any:
        return self._ask("/v1/submit", json.dumps(one_call(**fields)).encode())

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self._text("/metrics"), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def child_is_alive(self) -> bool:
        try:
            os.kill(int(self.child_file.read_text()), 0)
        except ProcessLookupError:
            return False
        return True

    def _ask(self, path: str, body: bytes) -> Any:
        return json.loads(self._text(path, body))

    def _text(self, path: str, body: bytes | None = None) -> str:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return str(reply.read().decode())


StartProcess = Callable[..., ServerProcess]


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[StartProcess]:
    with contextlib.ExitStack() as stack:

        def start(kind: str, drain_timeout_s: float = 5) -> ServerProcess:
            child_file = tmp_path / "child"
            arguments = ["0", kind, str(drain_timeout_s), str(child_file)]
            command = [sys.executable, "-m", "tests.server.toy_server", *arguments]
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://[0-9.:]+", line)
            assert found is not None, line
            return ServerProcess(process, found[0], child_file)

        yield start


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_with_success(start_process: StartProcess, number: signal.Signals):
    server = start_process("free")
    assert server.submit()["variables"]["out"]["value"] == "<hi>"

    server.signal(number)

    _, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert errors == ""
    wait_until(lambda: not server.child_is_alive())


def test_a_signal_answers_who_waits_before_the_end(start_process: StartProcess):
    server = start_process("held", drain_timeout_s=0.2)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.submit)
        wait_until(lambda: server.metric("parrot_waiters") == 1)

        server.signal()

        assert waiting.result(timeout=60)["variables"]["out"]["state"] == "cancelled"
    assert server.process.wait(timeout=60) == 0


def test_a_second_signal_ends_the_server_at_once(start_process: StartProcess):
    server = start_process("held", drain_timeout_s=1000)
    server.submit(wait=False)

    server.signal()
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(timeout=0.5)
    server.signal()

    assert server.process.wait(timeout=2) == 130
    wait_until(lambda: not server.child_is_alive())


def test_a_port_in_use_is_an_error(start_process: StartProcess):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "tests.server.toy_server", port, "free", "1", os.devnull]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert "Address already in use" in done.stderr
