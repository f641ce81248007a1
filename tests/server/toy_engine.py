"""An engine that the server's tests move step by step.

``ScriptedEngine`` answers by itself; here a test says when a word comes, when a call ends, and what
goes wrong. Without ``is_held`` it answers at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from parrot_backend.core.chat import NO_DETAILS, OutputDetails, TokenLogprob
from parrot_backend.core.events import (
    EngineInfo,
    RequestFailed,
    RequestFinished,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.prompt import PartKind
from parrot_backend.engines.base import (
    AttentionLoad,
    EngineDied,
    EngineLoad,
    EngineOutput,
    EngineRequest,
)
from parrot_backend.engines.unhinted import UnhintedEngine
from parrot_backend.errors import EngineError

MAX_MODEL_LEN = 100


def text_of(request: EngineRequest) -> str:
    return "".join(part.text for part in request.parts if part.kind is not PartKind.ROLE)


@dataclass
class ToyPlan:
    """What all incarnations of the engine in one test do.

    Attributes:
        answer: The words of an output, from the prompt.
        is_held: Requests start, and say nothing until ``ToyEngine.say`` and ``finish``.
        delay_s: An answer takes so long.
        word_s: Its words come one by one, so far apart; None says them at once.
        ends: Whether an answer ends after its words.
        open_failures: So many openings fail.
        opens: Whether ``open`` ever returns.
        hangs_in_close: ``close`` never returns.
    """

    answer: Callable[[str], str] = lambda prompt: f"<{prompt}>"
    is_held: bool = False
    delay_s: float = 0.0
    word_s: float | None = None
    ends: Callable[[str], bool] = lambda prompt: True
    open_failures: int = 0
    opens: bool = True
    hangs_in_close: bool = False
    max_requests: int = 64
    finds_tool_calls: bool = True
    max_model_len: int = MAX_MODEL_LEN
    made: list[ToyEngine] = field(default_factory=list)

    def create(self, engine_id: EngineId) -> ToyEngine:
        engine = ToyEngine(engine_id, self)
        self.made.append(engine)
        return engine

    @property
    def engine(self) -> ToyEngine:
        return self.made[-1]


class ToyEngine(UnhintedEngine):
    def __init__(self, engine_id: EngineId, plan: ToyPlan) -> None:
        self.id = engine_id
        self.plan = plan
        self.running: dict[AttemptId, EngineRequest] = {}
        self.started: list[EngineRequest] = []
        self.aborted: list[AttemptId] = []
        self.is_closed = False
        self.attention: AttentionLoad | None = None
        self._outputs: asyncio.Queue[EngineOutput | Exception | None] = asyncio.Queue()

    async def open(self) -> EngineInfo:
        if not self.plan.opens:
            await asyncio.Event().wait()
        if self.plan.open_failures:
            self.plan.open_failures -= 1
            raise EngineError("engine_start_failed", "no such device")
        return EngineInfo(
            self.id,
            ("toy",),
            self.plan.max_model_len,
            max(10_000, self.plan.max_model_len),
            max(5_000, self.plan.max_model_len),
            self.plan.max_requests,
            finds_tool_calls=self.plan.finds_tool_calls,
        )

    def start(self, request: EngineRequest) -> None:
        self.running[request.attempt] = request
        self.started.append(request)
        if self.plan.is_held:
            return
        prompt = text_of(request)
        longest = self.plan.max_model_len
        if len(prompt) > longest:
            del self.running[request.attempt]
            message = f"the prompt has {len(prompt)} tokens, {longest} fit"
            self._outputs.put_nowait(RequestFailed(request.attempt, "prompt_too_long", message))
            return
        text = self.plan.answer(prompt)
        if self.plan.delay_s:
            asyncio.get_running_loop().call_later(
                self.plan.delay_s, self._answer, text, request.attempt
            )
        else:
            self._answer(text, request.attempt)

    def _answer(self, text: str, attempt: AttemptId) -> None:
        if self.plan.word_s is not None:
            self._say_words(text, text.split(" "), attempt)
        elif attempt in self.running:
            self.say(text, attempt)
            self.finish(text, attempt)

    def _say_words(self, text: str, words: list[str], attempt: AttemptId) -> None:
        if attempt not in self.running:
            return
        if words:
            self.say(words[0] if text.startswith(words[0]) else f" {words[0]}", attempt)
            later = (text, words[1:], attempt)
            asyncio.get_running_loop().call_later(self.plan.word_s or 0.0, self._say_words, *later)
        elif self.plan.ends(text):
            self.finish(text, attempt)

    def say(
        self,
        text: str,
        attempt: AttemptId | None = None,
        *,
        is_reasoning: bool = False,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        attempt = attempt or next(iter(self.running))
        self._outputs.put_nowait(TokensGenerated(attempt, text, 1, is_reasoning, logprobs))

    def finish(
        self,
        text: str,
        attempt: AttemptId | None = None,
        *,
        details: OutputDetails = NO_DETAILS,
    ) -> None:
        attempt = attempt or next(iter(self.running))
        request = self.running.pop(attempt)
        usage = RequestUsage(len(text_of(request)), len(text), 0)
        self._outputs.put_nowait(
            RequestFinished(attempt, text, None, "stop", usage, details=details)
        )

    def die(self, reason: str = "out of memory") -> None:
        self._outputs.put_nowait(EngineDied(reason))

    def break_stream(self) -> None:
        self._outputs.put_nowait(RuntimeError("not a message"))

    def abort(self, attempt: AttemptId) -> None:
        self.aborted.append(attempt)
        self.running.pop(attempt, None)

    async def outputs(self) -> AsyncIterator[EngineOutput]:
        while (output := await self._outputs.get()) is not None:
            if isinstance(output, Exception):
                raise output
            yield output

    def load(self) -> EngineLoad:
        return EngineLoad(len(self.running), 0, 0.25, 0, 0, 0, attention=self.attention)

    async def drain(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.is_closed = True
        self._outputs.put_nowait(None)
        if self.plan.hangs_in_close:
            await asyncio.Event().wait()
