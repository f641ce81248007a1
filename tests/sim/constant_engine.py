"""An engine whose requests take a time that can be written down: for tests of the shell."""

from __future__ import annotations

import math
from dataclasses import replace

from parrot_backend.core.criteria import Objective
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.step_time import StepWork
from parrot_backend.sim.engine_seam import (
    CacheChanged,
    Finished,
    Refused,
    SimEvent,
    SimRequest,
)
from parrot_backend.sim.spec import EngineSpec

PREFILL_S, DECODE_S = 0.001, 0.01


class ConstantLatency:
    """A step takes as long as its parts, whatever else it computes."""

    def step_s(self, work: StepWork) -> float:
        return PREFILL_S * work.prefill_tokens + DECODE_S * work.decodes

    def decode_run_s(self, decodes: int, context_tokens: int, num_steps: int) -> float:
        return DECODE_S * num_steps


def make_spec(**changes: object) -> EngineSpec:
    """Return a specification whose sizes do not matter."""
    return EngineSpec(ConstantLatency(), num_blocks=10_000, **changes)  # type: ignore[arg-type]


class ConstantEngine:
    """All requests run at once, each as if it were alone: so long per token of prompt and output.

    Attributes:
        told: What it was told, beside requests.
    """

    def __init__(self, spec: EngineSpec, *, reports_cache: bool) -> None:
        self._spec = spec
        self._reports_cache = reports_cache
        self._held: dict[bytes, int] = {}
        self._running: dict[AttemptId, Finished] = {}
        self._chains: dict[AttemptId, tuple[PrefixBoundary, ...]] = {}
        self._due: list[SimEvent] = []
        self._factor = 1.0
        self._now_s = 0.0
        self.told: list[tuple[object, ...]] = []

    def start(self, request: SimRequest, now_s: float) -> None:
        self._reach(now_s)
        if request.prompt_tokens + request.output_tokens > self._spec.max_model_len:
            self._due.append(Refused(request.attempt, now_s, "too long"))
            return
        cached = max((b.tokens for b in request.chain if b.hash in self._held), default=0)
        computed = request.prompt_tokens - cached
        first_s = now_s + PREFILL_S * computed * self._factor
        end_s = first_s + DECODE_S * request.output_tokens * self._factor
        if math.isinf(self._factor):
            first_s = end_s = math.inf
        self._chains[request.attempt] = request.chain
        self._running[request.attempt] = Finished(
            request.attempt, end_s, first_s, now_s, cached, computed
        )

    def abort(self, attempt: AttemptId, now_s: float) -> None:
        self._reach(now_s)
        self._running.pop(attempt, None)
        self._due = [event for event in self._due if getattr(event, "attempt", "") != attempt]

    def update(
        self, attempt: AttemptId, objective: Objective, remaining: int, now_s: float
    ) -> None:
        self._reach(now_s)
        self.told.append(("update", attempt))

    def retain(self, key: bytes, attempt: AttemptId | None, now_s: float) -> None:
        self._reach(now_s)
        self.told.append(("retain", key))

    def release(self, keys: tuple[bytes, ...], now_s: float) -> None:
        self._reach(now_s)
        self.told.append(("release", keys))

    def extend(self, attempt: AttemptId, key: bytes, now_s: float) -> None:
        self._reach(now_s)
        self.told.append(("extend", key))
        if self._spec.caches_prefixes:
            self._held[key] = self._chains[attempt][-1].tokens

    def slow_down(self, factor: float, now_s: float) -> None:
        self._reach(now_s)
        self._factor = factor
        if math.isinf(factor):
            self._running = {a: replace(e, at_s=factor) for a, e in self._running.items()}

    def advance(self, now_s: float) -> list[SimEvent]:
        assert now_s >= self._now_s
        self._now_s = now_s
        ended = sorted((e for e in self._running.values() if e.at_s <= now_s), key=lambda e: e.at_s)
        events, self._due = [*self._due, *ended], []
        for event in ended:
            del self._running[event.attempt]
            held = self._chains[event.attempt] if self._spec.caches_prefixes else ()
            self._held.update({b.hash: b.tokens for b in held})
            if self._reports_cache:
                events.append(CacheChanged(now_s, held, ()))
        return events

    @property
    def next_s(self) -> float | None:
        if self._due:
            return self._now_s
        next_s = min((event.at_s for event in self._running.values()), default=math.inf)
        return None if math.isinf(next_s) else next_s

    def _reach(self, now_s: float) -> None:
        assert now_s == self._now_s, "whoever drives an engine brings it to the present first"
