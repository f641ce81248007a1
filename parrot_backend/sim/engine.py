"""A simulated engine: continuous batching with chunked prefill on paged KV memory.

Between changes of the batch, steps of decoding are not made one by one: a run of them ends when a
request ends or blocks run out, and its time is known in closed form. What arrives meanwhile takes
part after the step that is in progress then.
"""

from __future__ import annotations

import math
from typing import Protocol

from parrot_backend.core.criteria import Objective
from parrot_backend.core.ids import AttemptId
from parrot_backend.sim.engine_checks import check, problem_of
from parrot_backend.sim.engine_keeper import Keeper
from parrot_backend.sim.engine_live import Live
from parrot_backend.sim.engine_machine import Machine
from parrot_backend.sim.engine_parrot import ParrotRules
from parrot_backend.sim.engine_seam import Finished, Refused, SimEvent, SimRequest
from parrot_backend.sim.engine_vllm import VllmRules
from parrot_backend.sim.kv_names import NameBook
from parrot_backend.sim.latency import ScaledLatency, step_time_of, steps_within
from parrot_backend.sim.spec import EngineSpec


class Rules(Protocol):
    """Who takes part in a step."""

    @property
    def num_waiting(self) -> int:
        """Requests that have no memory."""
        ...

    def add(self, live: Live) -> bool:
        """A request has come; tell whether the next step may be another one for it."""
        ...

    def remove(self, live: Live) -> None:
        """A request is given up that waits."""
        ...

    def update(self, live: Live, objective: Objective, remaining: int) -> None:
        """More is known of a request."""
        ...

    def ended(self, live: Live) -> None:
        """A request that ran has ended or was given up."""
        ...

    def plan(self, now_s: float) -> int:
        """Choose what the next steps compute; return how many are alike, 0 for none."""
        ...


class ContinuousBatchingEngine:
    """A ``SimulatedEngine``.

    Args:
        spec: What it is.
        reports_cache: Whether it tells what its cache holds.

    Raises:
        ValueError: Its numbers contradict each other.
    """

    def __init__(self, spec: EngineSpec, *, reports_cache: bool = False) -> None:
        check(spec)
        self.spec = spec
        has_pins = spec.rules == "parrot" and spec.caches_prefixes
        follows = spec.caches_prefixes and (has_pins or reports_cache)
        names = NameBook(spec.block_tokens, tells=reports_cache) if follows else None
        self.machine = Machine(spec, names)
        self._keeper = Keeper(self.machine.cache, pins=has_pins, names=names)
        self._reports_cache = reports_cache
        self._rules = self._create_rules()
        self._latency = spec.latency
        self._lives: dict[AttemptId, Live] = {}
        self._retains: list[tuple[bytes, AttemptId | None]] = []
        self._releases: list[bytes] = []
        self._events: list[SimEvent] = []
        self._num_started = 0
        self._factor = self._factor_in_use = 1.0
        self._aborted: list[Live] = []
        #: The run of steps in progress, if there is one.
        self._begun_s = 0.0
        self._num_steps = 0
        self._end_s: float | None = None
        #: When the next run is to begin, if none is in progress.
        self._due_s: float | None = None

    def _create_rules(self) -> Rules:
        if self.spec.rules == "vllm":
            return VllmRules(self.machine, self._keeper)
        return ParrotRules(self.machine, self._keeper, step_time_of(self.spec.latency))

    # --- the seam -----------------------------------------------------------------------------

    def start(self, request: SimRequest, now_s: float) -> None:
        """Queue an attempt."""
        problem = problem_of(request, self.spec)
        if problem:
            self._events.append(Refused(request.attempt, now_s, problem))
            return
        live = Live(request, self._num_started, now_s, self.machine.batch)
        self._num_started += 1
        self._lives[request.attempt] = live
        self._keeper.arrived(live)
        self._retains.extend((key, None) for key in request.retain)
        if self._rules.add(live) or request.retain or self._end_s is None:
            self._interrupt(now_s)

    def abort(self, attempt: AttemptId, now_s: float) -> None:
        """Take an attempt out, wherever it is; unknown ones are ignored."""
        live = self._lives.pop(attempt, None)
        if live is None:
            return
        if live.hold is None:
            self._rules.remove(live)
        elif self._end_s is None:
            self._drop(live)
        else:
            live.is_aborted = True
            self._aborted.append(live)
        self._interrupt(now_s)

    def update(
        self, attempt: AttemptId, objective: Objective, remaining: int, now_s: float
    ) -> None:
        """Take in what is known of an attempt now; unknown ones are ignored."""
        live = self._lives.get(attempt)
        if live is not None:
            self._rules.update(live, objective, remaining)
            self._interrupt(now_s)

    def retain(self, key: bytes, attempt: AttemptId | None, now_s: float) -> None:
        """Keep a prefix; with an ended attempt, it is that attempt's prompt and output."""
        if self._end_s is None:
            self._keeper.retain(key, attempt, now_s)
        else:  # the step in progress counts with the blocks that are free now
            self._retains.append((key, attempt))
            self._interrupt(now_s)

    def release(self, keys: tuple[bytes, ...], now_s: float) -> None:
        """Keep prefixes no longer."""
        self._retains = [each for each in self._retains if each[0] not in keys]
        if self._end_s is None:
            self._keeper.release(keys)
        else:  # other prefixes may be kept instead, in blocks that are free now
            self._releases.extend(keys)
            self._interrupt(now_s)

    def extend(self, attempt: AttemptId, key: bytes, now_s: float) -> None:
        """Name the prompt and output of an ended attempt, so that prompts that go on find it."""
        self._keeper.extend(attempt, key)

    def slow_down(self, factor: float, now_s: float) -> None:
        """Take so many times as long for steps that begin from now on."""
        if not factor > 0:
            raise ValueError(f"the factor of a slow engine must be positive, not {factor}")
        self._interrupt(now_s)
        self._factor = factor

    def advance(self, now_s: float) -> list[SimEvent]:
        """Compute up to the present, and return what happened, in order of time."""
        while True:
            if self._end_s is not None:
                if self._end_s > now_s:
                    break
                end_s = self._end_s
                self._finish_run(end_s)
                self._begin_run(end_s)
            elif self._due_s is not None and self._due_s <= now_s:
                due_s, self._due_s = self._due_s, None
                self._retain_and_report(due_s)
                self._begin_run(due_s)
            else:
                break
        events, self._events = self._events, []
        return events

    @property
    def next_s(self) -> float | None:
        """When something happens next if nothing else comes; None if nothing will."""
        if self._events:
            return self._events[0].at_s
        next_s = self._due_s if self._end_s is None else self._end_s
        return None if next_s == math.inf else next_s

    # --- runs of steps ------------------------------------------------------------------------

    def _begin_run(self, now_s: float) -> None:
        if self._factor != self._factor_in_use:
            self._take_speed()
        num_steps = self._rules.plan(now_s)
        if not num_steps:
            return
        machine = self.machine
        if machine.chunks:
            run_s = self._latency.step_s(machine.work())
        else:
            batch = machine.batch
            run_s = self._latency.decode_run_s(batch.num_requests, batch.read_tokens, num_steps)
        self._begun_s, self._num_steps, self._end_s = now_s, num_steps, now_s + run_s

    def _take_speed(self) -> None:
        self._factor_in_use = self._factor
        self._latency = ScaledLatency(self.spec.latency, self._factor)
        if isinstance(self._rules, ParrotRules) and math.isfinite(self._factor):
            self._rules.learn(step_time_of(self._latency))

    def _interrupt(self, now_s: float) -> None:
        """Let the run end with the step that is in progress; begin one if there is none."""
        if self._end_s is None:
            if self._due_s is None:
                self._due_s = now_s
        elif self._num_steps > 1:
            batch = self.machine.batch
            decodes, context = batch.num_requests, batch.read_tokens
            elapsed_s = now_s - self._begun_s
            steps = steps_within(self._latency, decodes, context, elapsed_s, self._num_steps)
            if steps < self._num_steps:
                run_s = self._latency.decode_run_s(decodes, context, steps)
                self._num_steps, self._end_s = steps, self._begun_s + run_s

    def _finish_run(self, now_s: float) -> None:
        self._end_s = None
        batch = self.machine.batch
        chunks = self.machine.advance(self._num_steps)
        while (live := batch.pop_ended()) is not None:
            self._finish(live, now_s)
        for live, _ in chunks:
            if live.computed >= live.target_tokens:
                self._prompt_done(live, now_s)
        for live in self._aborted:
            if live.hold is not None:
                self._drop(live)
        self._aborted.clear()
        self._retain_and_report(now_s)

    def _retain_and_report(self, now_s: float) -> None:
        if self._releases:
            self._keeper.release(tuple(self._releases))
            self._releases.clear()
        for key, attempt in self._retains:
            self._keeper.retain(key, attempt, now_s)
        self._retains.clear()
        if self._reports_cache:
            is_last = not self.machine.running
            report = self._keeper.report(now_s, is_last=is_last)
            if report is not None:
                self._events.append(report)

    def _prompt_done(self, live: Live, now_s: float) -> None:
        if live.first_token_s < 0:
            live.first_token_s = now_s
        if not live.request.is_fill:
            live.generated += 1
        if live.generated < live.request.output_tokens and not live.request.is_fill:
            self.machine.batch.add(live)
        else:
            self._finish(live, now_s)

    def _finish(self, live: Live, now_s: float) -> None:
        self._drop(live)
        if live.is_aborted:
            return
        attempt = live.request.attempt
        del self._lives[attempt]
        self._events.append(
            Finished(
                attempt,
                now_s,
                live.first_token_s,
                live.started_s,
                live.cached_tokens,
                live.computed_tokens,
            )
        )

    def _drop(self, live: Live) -> None:
        """Take out a request that runs; what it computed can be named for a while."""
        self._rules.ended(live)
        node = self.machine.end(live)
        if node is not None and live.generated:
            self._keeper.ended(live, node)
