"""Builds simulated engines and requests for tests, and drives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import AttemptId, TaskGroupId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.engine import ContinuousBatchingEngine
from parrot_backend.sim.engine_seam import CacheChanged, Finished, Refused, SimEvent, SimRequest
from parrot_backend.sim.latency import LinearLatency
from parrot_backend.sim.spec import EngineSpec

#: 10 ms a step, 0.1 ms a prompt token, 1 ms a decode, 1 us a token of context.
MODEL = StepTimeModel(0.01, 1e-4, 1e-3, 1e-6, 0.0, 100, 0.0)

LATENCY = Objective(ObjectiveClass.LATENCY)
THROUGHPUT = Objective(ObjectiveClass.THROUGHPUT)


def group(name: str) -> Objective:
    return Objective(ObjectiveClass.TASK_GROUP, TaskGroupId(name))


def make_spec(**changes: Any) -> EngineSpec:
    settings: dict[str, Any] = {
        "latency": LinearLatency(MODEL),
        "num_blocks": 1000,
        "rules": "vllm",
        "max_step_tokens": 2048,
        "max_requests": 64,
    }
    return EngineSpec(**{**settings, **changes})


def request(
    name: str, prompt: int | Iterable[tuple[str, int]], output: int = 1, **more: Any
) -> SimRequest:
    """Return a request; a prompt is its own length, or boundaries that others may have, too."""
    pairs = [(name, prompt)] if isinstance(prompt, int) else prompt
    chain = tuple(PrefixBoundary(key.encode(), tokens) for key, tokens in pairs)
    more.setdefault("objective", THROUGHPUT)
    return SimRequest(AttemptId(name), chain, output, **more)


class Driver:
    """One engine and what it told."""

    def __init__(self, spec: EngineSpec, *, reports_cache: bool = False) -> None:
        self.engine = ContinuousBatchingEngine(spec, reports_cache=reports_cache)
        self.finished: dict[str, Finished] = {}
        self.refused: dict[str, str] = {}
        self.held: dict[bytes, int] = {}
        self.times: list[float] = []

    def advance(self, now_s: float) -> None:
        for event in self.engine.advance(now_s):
            self._take(event)

    def _take(self, event: SimEvent) -> None:
        self.times.append(event.at_s)
        if isinstance(event, Finished):
            assert event.attempt not in self.finished
            self.finished[event.attempt] = event
        elif isinstance(event, Refused):
            self.refused[event.attempt] = event.message
        elif isinstance(event, CacheChanged):
            for key in event.lost:
                del self.held[key]
            self.held.update(event.held)

    def until(self, now_s: float) -> None:
        while (next_s := self.engine.next_s) is not None and next_s <= now_s:
            self.advance(next_s)
        self.advance(now_s)

    def start(self, *requests: SimRequest, at_s: float = 0.0) -> None:
        self.until(at_s)
        for each in requests:
            self.engine.start(each, at_s)

    def run(self, most: int = 100_000) -> dict[str, Finished]:
        """Let everything end."""
        for _ in range(most):
            next_s = self.engine.next_s
            if next_s is None:
                return self.finished
            self.advance(next_s)
        raise AssertionError("the engine goes on for ever")

    def end_s(self, name: str) -> float:
        return self.finished[name].at_s

    @property
    def is_empty(self) -> bool:
        machine = self.engine.machine
        return not machine.running and machine.cache.num_free == machine.cache.num_blocks
