"""What discovery costs the server's event loop for each call, and what it finds on the way.

The calls of the coding task go through ``CallPlacer`` into a whole server in this process, without
HTTP, which is the same either way; the engine answers at once with what the model said. The same
calls go by turns through a server with discovery (sessions, structure, and shapes of the runs
before) and one without. Times are those of this thread alone: from the parsed request until the
engine has it, and until what it said has been answered and noted. Prompts of 15,000 to 25,000
characters count, or all where there are none such.

    python -m benchmarks.bench_discovery_server [--files 4 8 16] [--repeat 9] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from benchmarks.common import Cell, append_rows, percentile
from parrot_backend import protocol as wire
from parrot_backend.core.events import SessionClosed
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.openai.chat import ChatRequest, chat_to_calls
from parrot_backend.server.openai.hints import Hints
from parrot_backend.server.openai.placing import CallPlacer, Placed
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot
from parrot_backend.server.views import session_to_view
from parrot_backend.server.waiting import Inbox
from tests.helpers.agent_traffic import TrafficCall, metagpt_calls
from tests.server.toy_engine import ToyPlan

#: Prompts of about the 20,000 characters that the goal speaks of.
_LEAST_CHARS, _MOST_CHARS = 15_000, 25_000


@dataclass
class Times:
    """Of the calls of all runs, in ms.

    Attributes:
        submit: With the characters of their prompts.
        end: Of each stage, per call.
        edges: Of the last run.
    """

    submit: list[tuple[int, float]] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    edges: int = 0

    def counted(self) -> list[tuple[int, float]]:
        """Return the submits of prompts of about 20,000 characters, or all if there are none."""
        return [s for s in self.submit if _LEAST_CHARS <= s[0] <= _MOST_CHARS] or self.submit

    def submit_ms(self, share: float) -> float:
        """Return a percentile of the times of the submits that count."""
        return round(percentile([ms for _, ms in self.counted()], share), 3)


class Server:
    """One server, and what it took."""

    def __init__(self, *, discovers: bool) -> None:
        self.plan = ToyPlan(max_model_len=2**22, max_requests=256)
        settings = ServerSettings(discovery=discovers, drain_timeout_s=0)
        self.app = create_app(settings, [EngineSlot("toy-0", self.plan.create)])
        self.service: Service = self.app.state.service
        self.placer: CallPlacer = self.app.state.placer
        self.times = Times()

    async def play(self, calls: Sequence[TrafficCall], run: str) -> None:
        """Put one run through the server, stage by stage."""
        replies = {"".join(call.texts): call.reply for call in calls}
        self.plan.answer = replies.__getitem__
        hints = Hints(app="coding", session=run)
        parsed = [(call.waits, sum(map(len, call.texts)), _parsed(call)) for call in calls]
        gc.collect()
        for _, stage in groupby(parsed, lambda one: one[0]):
            begun: list[tuple[Placed, Inbox]] = []
            for _, chars, nodes in stage:
                inbox = Inbox()
                begin_s = time.thread_time()
                begun.append((self.placer.submit(nodes, hints, inbox, stream=False), inbox))
                self.times.submit.append((chars, (time.thread_time() - begin_s) * 1e3))
            begin_s = time.thread_time()
            for placed, inbox in begun:
                await inbox.all_answered()
                self.placer.end(placed, inbox.answers.values())
            self.times.end.append((time.thread_time() - begin_s) * 1e3 / len(begun))
        session = self.service.coordinator.session(placed.session)
        view = session_to_view(session, self.service.clock.now_s())
        self.times.edges = sum(len(n.found.reads) for n in view.nodes if n.found is not None)
        self.service.runtime.dispatch(SessionClosed(placed.session))


def _parsed(call: TrafficCall) -> tuple[wire.CallNode, ...]:
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("system", "user"), call.texts, strict=True)
    ]
    return chat_to_calls(ChatRequest.model_validate({"messages": messages}, strict=False))


async def compare(num_files: int, repeat: int) -> dict[str, Cell]:
    """Return one row."""
    servers = {"on": Server(discovers=True), "off": Server(discovers=False)}
    for server in servers.values():
        server.service.start()
        await server.service.supervisor.joined()
    # The first run is for warming up.
    for number in range(repeat + 1):
        for server in servers.values():
            await server.play(list(metagpt_calls(num_files, seed=number)), f"run {number}")
            if number == 0:
                server.times = Times()
    for server in servers.values():
        await server.service.stop()
    row: dict[str, Cell] = {"files": num_files, "runs": repeat}
    row["edges"] = servers["on"].times.edges
    row["prompt_chars"] = round(percentile([c for c, _ in servers["on"].times.counted()], 0.5))
    for name, server in servers.items():
        times = server.times
        row[f"submit_p50_ms_{name}"] = times.submit_ms(0.5)
        row[f"submit_p99_ms_{name}"] = times.submit_ms(0.99)
        row[f"end_p50_ms_{name}"] = round(percentile(times.end, 0.5), 3)
    on, off = (server.times for server in servers.values())
    row["added_submit_p50_ms"] = round(on.submit_ms(0.5) - off.submit_ms(0.5), 3)
    row["added_end_p50_ms"] = round(percentile(on.end, 0.5) - percentile(off.end, 0.5), 3)
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    rows = [asyncio.run(compare(files, args.repeat)) for files in args.files]
    for row in rows:
        print(row)
    if args.save:
        append_rows("discovery_server", rows)


if __name__ == "__main__":
    main()
