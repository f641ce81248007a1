"""Ctrl-C in a terminal reaches the whole process group: `parrot serve` on real vLLM must drain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.vllm

_BODY = {
    "nodes": [
        {
            "kind": "call",
            "name": "long",
            "prompt": "Tell me a long story. {{output:story}}",
            "sampling": {"max_tokens": 1500, "temperature": 0, "ignore_eos": True},
        }
    ],
    "outputs": [{"variable": "story"}],
}


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server that leads a process group; yield it with its URL."""
    pytest.importorskip("vllm")
    command = [sys.executable, "-m", "parrot_backend", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--kv-cache-gib", "0.25"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        ready = next(line for line in lines if "ready at" in line)
        yield process, ready.split("ready at ")[1].split()[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _in_session(session: int) -> list[str]:
    """Return the processes that a server and all its children are."""
    found = subprocess.run(
        ["ps", "-e", "-o", "sid=,pid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=3) for line in found.stdout.splitlines()]
    return [" ".join(r) for r in rows if int(r[0]) == session and not r[2].startswith("Z")]


def _submit(url: str) -> dict[str, Any]:
    reply = httpx.post(f"{url}/v1/submit", json=_BODY, timeout=60).json()
    story: dict[str, Any] = reply["variables"]["story"]
    return story


def _await_running(url: str) -> None:
    while "parrot_num_requests_running 1.0" not in httpx.get(f"{url}/metrics").text:
        time.sleep(0.02)


@pytest.mark.timeout(120)
def test_a_running_call_is_finished_and_nothing_is_left(
    server: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = server
    with ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(_submit, url)
        _await_running(url)
        os.killpg(process.pid, signal.SIGINT)
        story = submitted.result(timeout=60)
    assert (story["state"], story["usage"]["completion_tokens"]) == ("ready", 1500)
    assert process.wait(timeout=30) == 0
    assert _in_session(process.pid) == []
