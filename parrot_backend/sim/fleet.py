"""The simulated engines: their incarnations, what they run, and when they are looked at again.

An engine has no clock. It is brought up to the present before it is told anything, and woken when
it says that something will have happened; what happened goes to the shell as events of the core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from parrot_backend.core.criteria import Objective
from parrot_backend.core.events import EngineJoined, EngineLost, EngineReported, Event
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.sim.engine_seam import (
    CacheChanged,
    Finished,
    Refused,
    SimEvent,
    SimRequest,
    SimulatedEngine,
)
from parrot_backend.sim.event_loop import EventLoop, Scheduled
from parrot_backend.sim.jobs import LiveCall
from parrot_backend.sim.joining import engine_info, reports_cache
from parrot_backend.sim.latency import ScaledLatency, step_time_of
from parrot_backend.sim.spec import EngineSpec, Fault


class EngineFactory(Protocol):
    """Makes engines; with ``reports_cache`` they tell what their cache holds."""

    def __call__(self, spec: EngineSpec, *, reports_cache: bool) -> SimulatedEngine:
        """Return an idle engine with an empty cache, at time 0."""
        ...


class FleetListener(Protocol):
    """Who hears of engines."""

    def dispatch(self, event: Event) -> None:
        """Something happened that the core is to know."""
        ...

    def call_finished(self, engine: int, call: LiveCall | None, event: Finished) -> None:
        """A call, or a fill (None), has run to its end."""
        ...

    def call_refused(self, call: LiveCall | None, event: Refused) -> None:
        """An attempt can never run on its engine."""
        ...


@dataclass(slots=True, eq=False)
class _Life:
    """One incarnation of one engine.

    Attributes:
        running: Attempts there, fills (None) among them.
        coming: Those of them that are still on their way to the engine.
        num_calls: Calls among them.
        wake: When it is looked at again.
        advanced_s: Up to when it has computed.
    """

    id: EngineId
    position: int
    engine: SimulatedEngine
    running: dict[AttemptId, LiveCall | None] = field(default_factory=dict)
    coming: dict[AttemptId, SimRequest] = field(default_factory=dict)
    num_calls: int = 0
    wake: Scheduled | None = None
    advanced_s: float = -1.0
    busy_since_s: float = 0.0


class SimFleet:
    """All engines.

    Args:
        specs: One for each position.
        create: Makes engines.
        loop: The clock.
        listener: Hears of what happens.
    """

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        create: EngineFactory,
        loop: EventLoop,
        listener: FleetListener,
    ) -> None:
        self._specs = specs
        self._create = create
        self._loop = loop
        self._listener = listener
        self._lives: dict[EngineId, _Life] = {}
        self._life_at: dict[int, _Life] = {}
        self._num_lives = [0] * len(specs)
        self._busy_s = [0.0] * len(specs)
        self._changed: dict[EngineId, _Life] = {}
        self._server_free_s = 0.0

    # --- lives -----------------------------------------------------------------------------

    def join(self, position: int) -> None:
        """Let an engine join under a new id; nothing happens where one serves already."""
        if position in self._life_at:
            return
        spec, number = self._specs[position], self._num_lives[position]
        self._num_lives[position] += 1
        engine_id = EngineId(f"e{position}.{number}" if number else f"e{position}")
        engine = self._create(spec, reports_cache=reports_cache(spec))
        life = _Life(engine_id, position, engine)
        self._lives[engine_id] = self._life_at[position] = life
        self._listener.dispatch(EngineJoined(engine_info(spec, engine_id)))
        self._report_step_time(life, 1.0)

    def suffer(self, fault: Fault) -> None:
        """Let something happen to an engine; to one that is gone, only joining does."""
        life = self._life_at.get(fault.engine)
        if fault.kind == "joins":
            self.join(fault.engine)
        elif life is None:
            return
        elif fault.kind == "lost":
            self._advance(life)
            self._forget(life)
            self._listener.dispatch(EngineLost(life.id, "a fault was asked for"))
        else:
            self._slow_down(life, fault.factor)

    def give_up(self, engine: EngineId) -> None:
        """End an engine that the core no longer trusts; it has forgotten it already."""
        life = self._lives.get(engine)
        if life is not None:
            self._forget(life)

    def is_alive(self, engine: EngineId) -> bool:
        """Tell whether an engine gives signs of life: it has something to do, and does it."""
        life = self._lives.get(engine)
        return life is not None and (life.engine.next_s is not None or bool(life.coming))

    def busy_s(self) -> tuple[float, ...]:
        """Return how long something has run at each position, fills not counted."""
        total = list(self._busy_s)
        for life in self._lives.values():
            if life.num_calls:
                total[life.position] += self._loop.now_s - life.busy_since_s
        return tuple(total)

    def _forget(self, life: _Life) -> None:
        if life.num_calls:
            self._busy_s[life.position] += self._loop.now_s - life.busy_since_s
        del self._lives[life.id], self._life_at[life.position]
        self._changed.pop(life.id, None)
        if life.wake is not None:
            self._loop.cancel(life.wake)

    def _slow_down(self, life: _Life, factor: float) -> None:
        self._advance(life)
        life.engine.slow_down(factor, self._loop.now_s)
        if factor < math.inf:  # else it says nothing more
            self._report_step_time(life, factor)
        self._note_changed(life)
        self.settle()

    def _report_step_time(self, life: _Life, factor: float) -> None:
        """Let an engine with our plug-in tell how long its steps take from now on."""
        spec = self._specs[life.position]
        if spec.rules != "parrot":
            return
        latency = spec.latency if factor == 1.0 else ScaledLatency(spec.latency, factor)
        self._listener.dispatch(EngineReported(life.id, step_time=step_time_of(latency)))

    # --- driving ---------------------------------------------------------------------------

    def start(self, engine: EngineId, request: SimRequest, call: LiveCall | None) -> None:
        """Begin an attempt of a call, or a fill (None); it takes its time to reach the engine."""
        life, now_s = self._lives.get(engine), self._loop.now_s
        if life is None:
            return
        if call is not None:
            if not life.num_calls:
                life.busy_since_s = now_s
            life.num_calls += 1
        life.running[request.attempt] = call
        spec = self._specs[life.position]
        if not spec.call_overhead_s:
            self._advance(life)
            self._note_changed(life)
            life.engine.start(request, now_s)
            return
        life.coming[request.attempt] = request
        self._server_free_s = max(self._server_free_s, now_s) + spec.server_call_s
        arrives_s = self._server_free_s + spec.call_overhead_s - spec.server_call_s
        self._loop.at(arrives_s, self._arrive, engine, request.attempt)

    def _arrive(self, engine: EngineId, attempt: AttemptId) -> None:
        life = self._driven(engine)
        request = None if life is None else life.coming.pop(attempt, None)
        if life is not None and request is not None:
            life.engine.start(request, self._loop.now_s)
        self.settle()

    def abort(self, engine: EngineId, attempt: AttemptId) -> None:
        """Stop an attempt or a fill."""
        life = self._driven(engine)
        if life is not None:
            self._take(life, attempt)
            life.engine.abort(attempt, self._loop.now_s)

    def update(
        self, engine: EngineId, attempt: AttemptId, objective: Objective, remaining: int
    ) -> None:
        """Tell what is known of an attempt now."""
        life = self._driven(engine)
        if life is not None:
            request = life.coming.get(attempt)
            if request is not None:
                life.coming[attempt] = replace(request, objective=objective, remaining=remaining)
            life.engine.update(attempt, objective, remaining, self._loop.now_s)

    def retain(self, engine: EngineId, key: bytes, attempt: AttemptId | None) -> None:
        """Keep a prefix."""
        life = self._driven(engine)
        if life is not None:
            life.engine.retain(key, attempt, self._loop.now_s)

    def release(self, engine: EngineId, keys: tuple[bytes, ...]) -> None:
        """Keep prefixes no longer."""
        life = self._driven(engine)
        if life is not None:
            life.engine.release(keys, self._loop.now_s)

    def extend(self, position: int, attempt: AttemptId, key: bytes) -> None:
        """Name the prompt and output of an attempt that has just ended."""
        self._life_at[position].engine.extend(attempt, key, self._loop.now_s)

    def settle(self) -> None:
        """Set the alarms of the engines that were told something."""
        for life in self._changed.values():
            next_s = life.engine.next_s
            if life.wake is not None:
                if life.wake.time_s == next_s:
                    continue
                self._loop.cancel(life.wake)
                life.wake = None
            if next_s is not None:
                life.wake = self._loop.at(next_s, self._wake, life)
        self._changed.clear()

    def _driven(self, engine: EngineId) -> _Life | None:
        """Return an engine, up to date, if it still lives and listens."""
        life = self._lives.get(engine)
        if life is not None:
            self._advance(life)
            self._note_changed(life)
        return life

    def _wake(self, life: _Life) -> None:
        life.wake = None
        life.advanced_s = -1.0  # something more may have happened at this very instant
        self._advance(life)
        self._note_changed(life)
        self.settle()

    def _note_changed(self, life: _Life) -> None:
        self._changed[life.id] = life

    def _advance(self, life: _Life) -> None:
        now_s = self._loop.now_s
        if life.advanced_s == now_s:
            return
        life.advanced_s = now_s
        for event in life.engine.advance(now_s):
            self._tell(life, event)

    def _tell(self, life: _Life, event: SimEvent) -> None:
        if isinstance(event, CacheChanged):
            self._listener.dispatch(EngineReported(life.id, event.held, event.lost))
        elif event.attempt in life.running:
            call = self._take(life, event.attempt)
            if isinstance(event, Finished):
                self._listener.call_finished(life.position, call, event)
            else:
                self._listener.call_refused(call, event)

    def _take(self, life: _Life, attempt: AttemptId) -> LiveCall | None:
        life.coming.pop(attempt, None)
        call = life.running.pop(attempt, None)
        if call is not None:
            life.num_calls -= 1
            if not life.num_calls:
                self._busy_s[life.position] += self._loop.now_s - life.busy_since_s
        return call
