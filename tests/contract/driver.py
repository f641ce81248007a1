"""Drives an engine for the tests: one reader of its outputs, and one record for each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from parrot_backend.core.criteria import UNANNOTATED, Objective, ObjectiveClass
from parrot_backend.core.events import (
    EngineInfo,
    EngineReported,
    RequestFailed,
    RequestFinished,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, SessionId
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import AttemptOutput, Engine, EngineDied, EngineRequest

LATENCY = Objective(ObjectiveClass.LATENCY)

#: Longer than anything takes on a busy machine, shorter than a hanging test should.
PATIENCE_S = 30.0


def role(name: str) -> PromptPart:
    return PromptPart(PartKind.ROLE, name)


def constant(text: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, text)


def value(text: str, token_ids: tuple[int, ...] | None = None) -> PromptPart:
    return PromptPart(PartKind.VALUE, text, token_ids)


@dataclass(eq=False)
class Attempt:
    """One attempt and all that was said of it."""

    id: AttemptId
    outputs: list[AttemptOutput] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def terminals(self) -> list[AttemptOutput]:
        return [o for o in self.outputs if not isinstance(o, TokensGenerated)]

    @property
    def streamed(self) -> str:
        return "".join(o.text for o in self.outputs if isinstance(o, TokensGenerated))

    @property
    def finished(self) -> RequestFinished:
        (terminal,) = self.terminals
        assert isinstance(terminal, RequestFinished), terminal
        return terminal

    @property
    def failed(self) -> RequestFailed:
        (terminal,) = self.terminals
        assert isinstance(terminal, RequestFailed), terminal
        return terminal


class EngineDriver:
    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        self.engine = engine
        self.info = info
        self.attempts: dict[AttemptId, Attempt] = {}
        #: All that was said, in order.
        self.said: list[AttemptOutput] = []
        self.strays: list[AttemptOutput] = []
        self.reports: list[EngineReported] = []
        self.reported = asyncio.Event()
        self.end: BaseException | None = None
        self._numbers = count()
        self._reader = asyncio.create_task(self._read())

    def start(
        self,
        prompt: str | Sequence[PromptPart],
        *,
        model: str | None = None,
        objective: Objective = UNANNOTATED,
        cache_salt: str | None = None,
        hints: dict[str, Any] | None = None,
        **sampling: Any,
    ) -> Attempt:
        """Start a request; a plain string is one value. Greedy, 12 tokens, unless said.

        ``hints`` are further fields of the request.
        """
        parts = (value(prompt),) if isinstance(prompt, str) else tuple(prompt)
        attempt = Attempt(AttemptId(f"s.n{next(self._numbers)}#0~0"))
        self.attempts[attempt.id] = attempt
        how = Sampling(**{"max_tokens": 12, "temperature": 0.0, **sampling})
        self.engine.start(
            EngineRequest(
                attempt.id,
                SessionId("s"),
                model,
                parts,
                how,
                objective,
                cache_salt,
                **(hints or {}),
            )
        )
        return attempt

    async def run(self, prompt: str | Sequence[PromptPart], **options: Any) -> Attempt:
        """Start a request and wait for its end."""
        attempt = self.start(prompt, **options)
        await self.terminal(attempt)
        return attempt

    async def terminal(self, *attempts: Attempt) -> None:
        """Wait until each attempt has ended."""
        for attempt in attempts:
            await self._until(attempt, lambda one=attempt: bool(one.terminals))

    async def first_output(self, attempt: Attempt) -> None:
        """Wait until anything was said of an attempt."""
        await self._until(attempt, lambda: bool(attempt.outputs))

    async def told(self, condition: Callable[[list[EngineReported]], bool]) -> None:
        """Wait until the reports so far fulfil a condition."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self.reports):
                self.reported.clear()
                await self.reported.wait()

    def begin_order(self, *attempts: Attempt) -> list[Attempt]:
        """Return attempts in the order in which something was said of them first."""
        seen = dict.fromkeys(output.attempt for output in self.said)
        return [self.attempts[a] for a in seen if self.attempts.get(a) in attempts]

    async def ended(self) -> BaseException | None:
        """Wait for the end of the outputs; return what was raised, None for a plain end."""
        await asyncio.wait_for(asyncio.shield(self._reader), PATIENCE_S)
        return self.end

    async def close(self) -> None:
        await self.engine.close()
        await self.ended()

    async def _until(self, attempt: Attempt, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self._reader.done(), f"the outputs ended: {self.end!r}"
                attempt.changed.clear()
                either = {asyncio.ensure_future(attempt.changed.wait()), self._reader}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    async def _read(self) -> None:
        try:
            async for output in self.engine.outputs():
                if isinstance(output, EngineReported):
                    self.reports.append(output)
                    self.reported.set()
                    continue
                self.said.append(output)
                attempt = self.attempts.get(output.attempt)
                if attempt is None:
                    self.strays.append(output)
                    continue
                attempt.outputs.append(output)
                attempt.changed.set()
        except EngineDied as exc:
            self.end = exc


def check_same(quiet: Attempt, talking: Attempt) -> None:
    """Check that a quiet attempt gives what a talking one gave."""
    ours, theirs = quiet.finished, talking.finished
    assert (ours.text, ours.token_ids) == (theirs.text, theirs.token_ids)
    assert ours.finish_reason == theirs.finish_reason
    counted = [(u.prompt_tokens, u.completion_tokens) for u in (ours.usage, theirs.usage)]
    assert counted[0] == counted[1]
    # Servers make up the ids of calls.
    called = [[(c.name, c.arguments) for c in f.details.tool_calls] for f in (ours, theirs)]
    assert called[0] == called[1]
    assert all(call.id for call in ours.details.tool_calls)
    assert ours.details.reasoning == theirs.details.reasoning
    assert (ours.details.logprobs is None) == (theirs.details.logprobs is None)
    logprobs = (ours.details.logprobs or (), theirs.details.logprobs or ())
    for mine, other in zip(*logprobs, strict=True):
        assert (mine.token, len(mine.top)) == (other.token, len(other.top))
        assert abs(mine.logprob - other.logprob) < 0.1


async def open_driver(engine: Engine) -> EngineDriver:
    """Open an engine and begin to read it."""
    return EngineDriver(engine, await engine.open())
