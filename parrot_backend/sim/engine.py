"""A simulated engine: continuous batching with chunked prefill on paged KV memory.

Between changes of the batch, steps of decoding are not made one by one: a run of them ends when a
request ends or blocks run out, and its time is known in closed form. What arrives meanwhile takes
part after the step that is in progress then.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from parrot_backend.core.criteria import Objective
from parrot_backend.core.ids import AttemptId
from parrot_backend.sim.engine_live import Live
from parrot_backend.sim.engine_machine import Machine
from parrot_backend.sim.engine_seam import Finished, Refused, SimEvent, SimRequest
from parrot_backend.sim.engine_vllm import VllmRules
from parrot_backend.sim.kv_node import KvNode
from parrot_backend.sim.latency import ScaledLatency, steps_within
from parrot_backend.sim.spec import EngineSpec

#: Ended requests whose output can still be named (the plug-in's number).
_MAX_ENDED = 1024


class Rules(Protocol):
    """Who takes part in a step."""

    @property
    def num_waiting(self) -> int:
        """Requests that have no memory."""
        ...

    def add(self, live: Live) -> None:
        """A request has come."""
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

    Raises:
        ValueError: Its numbers contradict each other.
    """

    def __init__(self, spec: EngineSpec) -> None:
        _check(spec)
        self.spec = spec
        self.machine = Machine(spec)
        self._rules: Rules = VllmRules(self.machine)
        self._latency = spec.latency
        self._lives: dict[AttemptId, Live] = {}
        self._ended: OrderedDict[AttemptId, KvNode] = OrderedDict()
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

    # --- the seam -----------------------------------------------------------------------------

    def start(self, request: SimRequest, now_s: float) -> None:
        """Queue an attempt."""
        problem = self._problem(request)
        if problem:
            self._events.append(Refused(request.attempt, now_s, problem))
            return
        live = Live(request, self._num_started, now_s)
        self._num_started += 1
        self._lives[request.attempt] = live
        self._rules.add(live)
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
        if attempt is not None:
            self.extend(attempt, key, now_s)

    def release(self, keys: tuple[bytes, ...], now_s: float) -> None:
        """Keep prefixes no longer."""

    def extend(self, attempt: AttemptId, key: bytes, now_s: float) -> None:
        """Name the prompt and output of an ended attempt, so that prompts that go on find it."""
        node = self._ended.get(attempt)
        if node is not None:
            self.machine.cache.name_tail(node, attempt, key)

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
        return self._due_s if self._end_s is None else self._end_s

    # --- runs of steps ------------------------------------------------------------------------

    def _begin_run(self, now_s: float) -> None:
        num_steps = self._rules.plan(now_s)
        if not num_steps:
            return
        if self._factor != self._factor_in_use:
            self._factor_in_use = self._factor
            self._latency = ScaledLatency(self.spec.latency, self._factor)
        machine = self.machine
        if machine.chunks:
            run_s = self._latency.step_s(machine.work())
        else:
            batch = machine.batch
            run_s = self._latency.decode_run_s(batch.num_requests, batch.read_tokens, num_steps)
        self._begun_s, self._num_steps, self._end_s = now_s, num_steps, now_s + run_s

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
            self._ended[live.request.attempt] = node
            if len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)

    def _problem(self, request: SimRequest) -> str:
        """Return why a request can never run here, or an empty text."""
        spec = self.spec
        tokens = request.prompt_tokens + request.output_tokens
        if not request.prompt_tokens:
            return "the prompt is empty"
        if tokens > spec.max_model_len:
            return f"{tokens} tokens of prompt and output, and the model takes {spec.max_model_len}"
        most = spec.num_blocks * spec.block_tokens
        if tokens > most:
            return f"{tokens} tokens of prompt and output, and the KV memory holds {most}"
        return ""


def _check(spec: EngineSpec) -> None:
    positive = {
        "num_blocks": spec.num_blocks,
        "block_tokens": spec.block_tokens,
        "max_requests": spec.max_requests,
        "max_model_len": spec.max_model_len,
    }
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name} of an engine must be at least 1, not {value}")
    if spec.max_step_tokens < spec.max_requests:
        raise ValueError(
            f"a step of {spec.max_step_tokens} tokens is too short for {spec.max_requests} requests"
        )
