"""One value, followed through the twelve steps of docs/architecture.md, in order.

A program of two calls runs against a real server on loopback. The places where the value of the
first call passes are watched, and what passes there is written down.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

import parrot_integrations as P
from parrot_backend.core import progress as progress_module
from parrot_backend.core.commands import AnswerWaiter, Command, StartRequest
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.progress import Progress
from parrot_backend.core.scheduling.placement import Placement
from parrot_backend.core.scheduling.scheduler import Scheduler
from parrot_backend.engines.scripted import ScriptedEngine
from parrot_backend.server import service as service_module
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.runtime import Runtime
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot
from parrot_backend.server.waiting import Message
from parrot_integrations.graph import GraphRecorder


@P.SemanticFunction(sampling=P.Sampling(max_tokens=8, temperature=0))
def Write(task: P.SemanticVariable):
    """Write python code of {{input:task}}. Code: {{output:code}}"""


@P.SemanticFunction(sampling=P.Sampling(max_tokens=8, temperature=0))
def Test(code: P.SemanticVariable):
    """Test this code: {{input:code}} Tests: {{output:test}}"""


@asynccontextmanager
async def running_server() -> AsyncIterator[str]:
    """Serve the scripted engine on a free loopback port."""
    app = create_app(ServerSettings(), [EngineSlot("scripted-0", ScriptedEngine)])
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class Watch:
    """Writes down a step each time a watched function sees the value on its way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self._monkeypatch = monkeypatch

    def entering(self, step: str, owner: Any, name: str, sees: Callable[..., bool]) -> None:
        """Watch calls of ``owner.name``; ``sees(*arguments)`` tells whether it is our value."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if sees(*args):
                self.steps.append(step)
            return original(*args, **kwargs)

        self._monkeypatch.setattr(owner, name, watched)

    def leaving(self, step: str, owner: Any, name: str, sees: Callable[..., bool]) -> None:
        """Watch results of ``owner.name``; ``sees(result)`` tells whether our value is in it."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if sees(result):
                self.steps.append(step)
            return result

        self._monkeypatch.setattr(owner, name, watched)


def _is_ours(identifier: str) -> bool:
    return "Write" in identifier


def _places_ours(placements: list[Placement]) -> bool:
    return any(_is_ours(placement.request.id) for placement in placements)


def _starts_ours(command: Command) -> bool:
    return isinstance(command, StartRequest) and _is_ours(command.node)


def _answers_ours(message: Message) -> bool:
    return isinstance(message, AnswerWaiter) and message.variable.endswith("code")


async def test_a_value_passes_the_twelve_steps_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    core = progress_module
    watch.entering("1 recorded", GraphRecorder, "add_call", lambda _, hint, *rest: _is_ours(hint))
    watch.entering("2 shipped", P.AsyncParrotClient, "submit_stream", lambda *args: True)
    watch.entering("3 parsed", Service, "submit", lambda _, body, inbox: len(body.nodes) == 2)
    watch.leaving("4 an event", service_module, "submit_to_event", lambda event: True)
    watch.entering("5 in the graph", SessionGraph, "apply", lambda *args: True)
    watch.leaving("6 deduced", core, "deduce_objectives", bool)
    watch.leaving("7 placed", Scheduler, "schedule", lambda made: bool(made) and _places_ours(made))
    watch.entering("8 a command", Runtime, "_carry_out", lambda _, command: _starts_ours(command))
    watch.entering("9 on an engine", ScriptedEngine, "start", lambda _, r: _is_ours(r.attempt))
    watch.entering(
        "10 a value", Progress, "finish", lambda _, event, now_s: _is_ours(event.attempt)
    )
    watch.entering("11 answered", Runtime, "_deliver", lambda _, message: _answers_ours(message))
    async with (
        running_server() as url,
        P.AsyncParrotClient(url) as client,
        P.program(client=client),
    ):
        code = Write(P.SemanticVariable("a snake game"))
        test = Test(code)
        first, last = await P.aget_all([code, test])
        watch.steps.append("12 got")
    assert first
    assert last
    assert watch.steps == [
        "1 recorded",
        "2 shipped",
        "3 parsed",
        "4 an event",
        "5 in the graph",
        "6 deduced",
        "7 placed",
        "8 a command",
        "9 on an engine",
        "10 a value",
        "11 answered",
        "12 got",
    ]


async def test_both_calls_of_the_program_are_latency_sensitive() -> None:
    async with (
        running_server() as url,
        P.AsyncParrotClient(url) as client,
        P.program(client=client) as program,
    ):
        code = Write(P.SemanticVariable("a snake game"))
        test = Test(code)
        await P.aget_all([code, test])
        assert program.session_id is not None
        session = await client.get_session(program.session_id)
    assert [node.state for node in session.nodes] == ["finished", "finished"]
    assert [node.objective for node in session.nodes] == ["latency", "latency"]
