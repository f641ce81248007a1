"""Agents on a scripted server, and what is heard of them; plain and planned alike."""

from __future__ import annotations

import _asyncio
import asyncio
import threading
from asyncio.base_events import BaseEventLoop
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest.mock import patch

from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.agents.orchestration.concurrent import ConcurrentOrchestration
from semantic_kernel.agents.orchestration.group_chat import (
    GroupChatOrchestration,
    RoundRobinGroupChatManager,
)
from semantic_kernel.agents.orchestration.sequential import SequentialOrchestration
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.contents import ChatMessageContent, StreamingChatMessageContent

from parrot_integrations.planning.background import background
from parrot_integrations.planning.context import current_plan
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotConcurrentOrchestration,
    ParrotGroupChatOrchestration,
    ParrotSequentialOrchestration,
)
from tests.helpers.scripted_server import ScriptedServer

T = TypeVar("T")

PLAIN: dict[str, Any] = {
    "sequential": SequentialOrchestration,
    "concurrent": ConcurrentOrchestration,
    "group chat": GroupChatOrchestration,
}
PLANNED: dict[str, Any] = {
    "sequential": ParrotSequentialOrchestration,
    "concurrent": ParrotConcurrentOrchestration,
    "group chat": ParrotGroupChatOrchestration,
}
KINDS = list(PLAIN)


class _Loop(asyncio.SelectorEventLoop):
    """A loop as Python makes them, whatever has become of the class."""

    run_forever = BaseEventLoop.run_forever
    run_until_complete = BaseEventLoop.run_until_complete
    _run_once = BaseEventLoop._run_once  # type: ignore[attr-defined]
    _check_running = BaseEventLoop._check_running  # type: ignore[attr-defined]


def execute(program: Coroutine[Any, Any, T]) -> T:
    """Run a program on a loop of its own.

    Templates of Handlebars apply nest_asyncio, for good; the orchestrations of the framework (which
    accept only the tasks of their day) do not work from then on. So it is undone here.
    """
    with (
        patch.multiple(asyncio, Task=_asyncio.Task, Future=_asyncio.Future),
        patch.multiple(asyncio.tasks, Task=_asyncio.Task, _CTask=_asyncio.Task),
        patch.multiple(asyncio.futures, Future=_asyncio.Future, _CFuture=_asyncio.Future),
        asyncio.Runner(loop_factory=_Loop) as runner,
    ):
        return runner.run(program)


def agents(host: str, *instructions: str | None, **fields: Any) -> list[Any]:
    """Return one agent for each text."""
    return [
        ChatCompletionAgent(
            name=f"agent{i}",
            description=f"Agent {i}",
            instructions=text,
            service=ParrotChatCompletion(host=host),
            **fields,
        )
        for i, text in enumerate(instructions)
    ]


@dataclass
class Heard:
    """What callbacks were told, by agent, in order."""

    answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    streams: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _open: dict[str, str] = field(default_factory=lambda: defaultdict(str))

    async def answer(self, message: Any) -> None:
        self.answers[message.name].append(message.content)

    def piece(self, message: StreamingChatMessageContent, is_final: bool) -> None:
        name = message.name or ""
        self._open[name] += message.content
        if is_final:
            self.streams[name].append(self._open.pop(name))


def build(
    classes: dict[str, Any], kind: str, members: list[Any], heard: Heard, rounds: int, **more: Any
) -> Any:
    """Return an orchestration that tells what it hears."""
    if kind == "group chat":
        more = {"manager": RoundRobinGroupChatManager(max_rounds=rounds), **more}
    return classes[kind](
        members=members,
        agent_response_callback=heard.answer,
        streaming_agent_response_callback=heard.piece,
        **more,
    )


async def run(orchestration: Any, task: Any = "Write about tides.") -> Any:
    """Return the result of an orchestration on a runtime of its own."""
    runtime = InProcessRuntime()
    runtime.start()
    try:
        result = await orchestration.invoke(task, runtime)
        return await result.get(timeout=30)
    finally:
        await runtime.stop_when_idle()


def texts(result: Any) -> list[tuple[str, str | None, str]]:
    """Return what a result says; that of agents at the same time has no order."""
    messages: list[ChatMessageContent] = result if isinstance(result, list) else [result]
    found = [(str(m.role), m.name, m.content) for m in messages]
    return sorted(found) if isinstance(result, list) else found


def settle(server: ScriptedServer) -> None:
    """Nothing is left on the server, and nobody listens any more."""
    assert current_plan.get() is None
    server.wait_until_idle()
    assert background().settle(10)
    server.wait_until_empty()
    for thread in threading.enumerate():
        if thread.name in ("parrot-reader", "parrot-submit"):
            thread.join(5)
            assert not thread.is_alive()
