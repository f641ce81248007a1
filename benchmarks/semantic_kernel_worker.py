"""Runs Semantic Kernel programs for ``bench_semantic_kernel``, in the environment that has it.

Reads a line of JSON for each run, with the names of a program and of a way to run it, and writes
one with what came of it. Ends when its standard input does.

    python -m benchmarks.semantic_kernel_worker PARROT_URL OPENAI_URL MODEL TOKENS ROUND_TRIP_S
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
)
from semantic_kernel.filters import FilterTypes

from benchmarks.critical_path import critical_path_s
from parrot_backend.protocol import SessionView
from parrot_integrations import ParrotClient
from parrot_integrations.planning.background import background
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotPlanFilter,
)

EXAMPLES = Path(__file__).parent.parent / "examples" / "semantic_kernel"

Program = Callable[[], Awaitable[str]]


class Programs:
    """The programs in all ways, each made when it is first asked for."""

    def __init__(self, parrot_url: str, openai_url: str, model: str, tokens: int) -> None:
        self._parrot = ParrotChatCompletion(host=parrot_url)
        self._parrot_settings = ParrotChatPromptExecutionSettings(
            temperature=0, max_tokens=tokens, ignore_eos=True
        )
        client = AsyncOpenAI(base_url=openai_url, api_key="none", max_retries=0)
        self._openai = OpenAIChatCompletion(ai_model_id=model, async_client=client)
        self._openai_settings = OpenAIChatPromptExecutionSettings(
            temperature=0, max_tokens=tokens, extra_body={"ignore_eos": True}
        )
        self.get = cache(self._make)

    def _make(self, name: str, way: str) -> Program:
        module = importlib.import_module(name)
        if way == "call_by_call":
            return module.build(Kernel(services=self._openai), self._openai_settings)
        kernel = Kernel(services=self._parrot)
        if way == "drop_in":
            return module.build(kernel, self._parrot_settings)
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())
        return getattr(module, "build_planned", module.build)(kernel, self._parrot_settings)


class ClosedSessions:
    """Looks at each session of a plan before it is forgotten."""

    def __init__(self) -> None:
        self.views: list[SessionView] = []
        self._close = ParrotClient.close_session

    def close(self, client: ParrotClient, session_id: str) -> None:
        """Take the place of the client's method."""
        self.views.append(client.get_session(session_id))
        self._close(client, session_id)


async def serve(programs: Programs, round_trip_s: float) -> None:
    """Run what is asked for until nothing is."""
    closed = ClosedSessions()
    with patch.object(ParrotClient, "close_session", lambda *given: closed.close(*given)):
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            program = programs.get(asked["program"], asked["way"])
            start_s = time.perf_counter()
            await program()
            took_s = time.perf_counter() - start_s
            background().settle()
            # Plans of one program follow each other, and each costs a round trip.
            bound_s = sum(round_trip_s + critical_path_s(view) for view in closed.views)
            closed.views.clear()
            print(json.dumps({"took_s": took_s, "bound_s": bound_s or None}), flush=True)


def main() -> None:
    """Read the arguments, which only the benchmark gives, and serve it."""
    parrot_url, openai_url, model, tokens, round_trip_s = sys.argv[1:]
    sys.path.insert(0, str(EXAMPLES))
    programs = Programs(parrot_url, openai_url, model, int(tokens))
    asyncio.run(serve(programs, float(round_trip_s)))


if __name__ == "__main__":
    main()
