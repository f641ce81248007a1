"""Runs an application twice, call by call and planned, and shows both; what the examples share.

parrot serve                                           # in another terminal
python examples/applications/chat_with_search.py --front native --round-trip-ms 250

The server is that of PARROT_BASE_URL, or else the one on this machine.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

import parrot_integrations as P
from parrot_backend.demo.blocking_transport import BlockingDelayingTransport
from parrot_integrations.planning.background import background

DEFAULT_URL = "http://127.0.0.1:8642"
SAMPLING = P.Sampling(temperature=0, max_tokens=32)

#: Runs the whole application.
Run = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Ways:
    """One application on one front end.

    Attributes:
        call_by_call: Every call waits for the texts that it reads.
        planned: What is known in advance is sent in advance.
    """

    call_by_call: Run
    planned: Run


Front = Callable[[P.ParrotClient], Ways]


def main(native: Front, langchain: Front) -> None:
    """Run an application both ways on the front end that the user names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--front", choices=("native", "langchain"), default="native")
    parser.add_argument("--base-url", default=os.environ.get("PARROT_BASE_URL") or DEFAULT_URL)
    parser.add_argument(
        "--round-trip-ms", type=float, default=0, help="a slow network to the server"
    )
    arguments = parser.parse_args()
    submits = Submits()
    network = BlockingDelayingTransport(arguments.round_trip_ms / 1000, submits)
    try:
        with closing(P.ParrotClient(arguments.base_url, transport=network)) as client:
            front = native if arguments.front == "native" else langchain
            compare(front(client), submits)
            background().settle()
    except P.ParrotError as exc:
        sys.exit(f"failed: {exc}")


def compare(ways: Ways, submits: "Submits") -> None:
    """Run both ways and print results, times and submits."""
    ways.call_by_call()  # what both share is in the engine's cache afterwards
    plain, plain_s, plain_submits = timed(ways.call_by_call, submits)
    planned, planned_s, planned_submits = timed(ways.planned, submits)
    print(as_text(planned), end="\n\n")
    print(f"call by call {plain_s:.3f} s, {plain_submits} submits")
    print(f"planned      {planned_s:.3f} s, {planned_submits} submits, {plain_s / planned_s:.2f} x")
    # Planned prompts are tokenised in pieces: see the limits in docs/langchain.md.
    print("the same texts" if plain == planned else "other texts: the tokens differ at a seam")


def timed(run: Run, submits: "Submits") -> tuple[Any, float, int]:
    """Return the result of a run, its time in seconds, and how many submits it took."""
    start_s, before = time.perf_counter(), submits.count
    result = run()
    return result, time.perf_counter() - start_s, submits.count - before


def as_text(result: Any) -> str:
    """Return a result in lines, with the names of its parts."""
    if isinstance(result, dict):
        return "\n".join(f"{name}: {as_text(part)}" for name, part in result.items())
    if isinstance(result, list):
        return "\n".join(map(as_text, result))
    return str(result)


@contextmanager
def program(client: P.ParrotClient, app: str = "") -> Iterator[None]:
    """Open a program whose session is closed later, so that nobody waits for that."""
    with P.program(client=client, app=app, keep=True) as opened:
        yield
    background().run(opened.close)


def ask(client: P.ParrotClient, function: P.TemplateFunction, *arguments: str) -> str:
    """Make one call and wait for its text: a program that is sent call by call."""
    with program(client):
        text: str = function(*arguments).get()
    return text


def at_once(run: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """Return what a function makes of each value, working on all of them at the same time."""
    listed = list(values)
    with ThreadPoolExecutor(max_workers=len(listed)) as threads:
        return list(threads.map(run, listed))


class Submits(httpx.HTTPTransport):
    """The network, counting the submits.

    Attributes:
        count: How many there were so far.
    """

    def __init__(self) -> None:
        super().__init__(limits=httpx.Limits(max_connections=None, max_keepalive_connections=None))
        self.count = 0
        self._counting = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        with self._counting:
            self.count += request.url.path.endswith("/submit")
        return super().handle_request(request)


if __name__ == "__main__":
    raise SystemExit("run one of the examples beside this file")
