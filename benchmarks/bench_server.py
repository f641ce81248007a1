"""What HTTP and coordination cost per call, on an engine that takes no time.

The server runs in its own process with the scripted engine at zero delay, so all that is measured
is ours: HTTP, checking, the core, and the way back. The baseline is a bare FastAPI application
that parses the same body with the same model and answers with the same reply, nothing else.

    python -m benchmarks.bench_server [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from benchmarks.common import append_rows, percentile, spread

_BARE_APP = """
import uvicorn
from fastapi import FastAPI, Response
from parrot_backend.protocol import SubmitReply, SubmitRequest, VariableView
app = FastAPI()
@app.post("/v1/submit")
async def submit(body: SubmitRequest) -> Response:
    view = VariableView(id="s.out", name="out", state="ready", value="x" * 120)
    reply = SubmitReply(session_id="s", variables={"out": view})
    return Response(reply.model_dump_json(), media_type="application/json")
@app.get("/ready")
async def ready() -> dict[str, str]:
    return {}
uvicorn.run(app, port=int(__import__("sys").argv[1]), log_level="warning")
"""


def bare_command(port: int) -> list[str]:
    """Return the command line of the baseline server."""
    return [sys.executable, "-c", _BARE_APP, str(port)]


def parrot_command(port: int) -> list[str]:
    """Return the command line of our server on the zero-delay engine."""
    options = ["--engine", "scripted", "--port", str(port), "--log-level", "warning"]
    options += ["--no-merge-calls"]  # all clients send the same prompts
    return [sys.executable, "-m", "parrot_backend", "serve", *options]


@contextmanager
def running_server(command: Callable[[int], list[str]]) -> Iterator[str]:
    """Start a server on a free port, yield its URL when it is ready, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(command(port), stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _await_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server at {url} did not start")


def chain(length: int) -> dict[str, Any]:
    """Return a submit of so many calls, each reading the output of the one before."""
    nodes = []
    for index in range(length):
        before = f"{{{{input:v{index - 1}}}}} " if index else ""
        nodes.append(
            {
                "kind": "call",
                "name": f"c{index}",
                "prompt": f"Part {index}. {before}Say more: {{{{output:v{index}}}}}",
                "sampling": {"max_tokens": 16, "temperature": 0},
            }
        )
    return {"nodes": nodes, "outputs": [{"variable": f"v{length - 1}"}]}


async def sequential_s(client: httpx.AsyncClient, body: dict[str, Any], count: int) -> list[float]:
    """Return the seconds of so many submits, one after another."""
    times = []
    for _ in range(count):
        start_s = time.perf_counter()
        reply = await client.post("/v1/submit", json=body)
        times.append(time.perf_counter() - start_s)
        assert reply.status_code == 200, reply.text
        assert all(v["state"] == "ready" for v in reply.json()["variables"].values())
    return times


async def calls_per_s(client: httpx.AsyncClient, clients: int, count: int) -> float:
    """Return the rate of single-call submits that so many concurrent clients reach."""
    start_s = time.perf_counter()
    await asyncio.gather(*(sequential_s(client, chain(1), count) for _ in range(clients)))
    return clients * count / (time.perf_counter() - start_s)


async def measure(url: str, count: int, chain_length: int | None) -> dict[str, float]:
    """Return the figures of one server; ``chain_length`` None skips the dependent calls."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await sequential_s(client, chain(1), 50)
        single = await sequential_s(client, chain(1), count)
        figures = {
            "single_p50_ms": percentile(single, 0.5) * 1e3,
            "single_p99_ms": percentile(single, 0.99) * 1e3,
            "rate_16_clients_per_s": await calls_per_s(client, 16, count // 8),
        }
        if chain_length is not None:
            long = await sequential_s(client, chain(chain_length), max(5, count // 20))
            per_call_s = [(t - percentile(single, 0.5)) / (chain_length - 1) for t in long]
            figures["dependent_p50_ms"] = spread(per_call_s).median * 1e3
        return figures


def main() -> None:
    """Measure baseline and server in turn, print medians, save when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="submits per repetition")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="append to results/server.csv")
    arguments = parser.parse_args()
    bare: list[dict[str, float]] = []
    ours: list[dict[str, float]] = []
    with running_server(bare_command) as bare_url, running_server(parrot_command) as our_url:
        for _ in range(arguments.repeat):
            bare.append(asyncio.run(measure(bare_url, arguments.count, None)))
            ours.append(asyncio.run(measure(our_url, arguments.count, 50)))
    row: dict[str, float] = {}
    print(f"{'':>24}   ours, median [p20, p80]      bare FastAPI")
    for key in ours[0]:
        mine = spread([figures[key] for figures in ours])
        print(f"{key:>24}   {mine!s:<28}", end="")
        row[key] = round(mine.median, 3)
        if key in bare[0]:
            base = spread([figures[key] for figures in bare])
            row[f"bare_{key}"] = round(base.median, 3)
            print(str(base), end="")
        print()
    added_ms = row["single_p50_ms"] - row["bare_single_p50_ms"]
    print(f"coordination adds {added_ms:.2f} ms to the bare round trip of one call")
    if arguments.save:
        print(f"row appended to {append_rows('server', [row])}")


if __name__ == "__main__":
    main()
