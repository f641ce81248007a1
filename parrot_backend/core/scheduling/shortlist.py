"""Which engines of many are worth a look.

All of few. Of many those that are least loaded and those that hold something. A request is blocked
if no engine has room for it, or those with room that use least of their time per token do not take
it: where targets or step times differ much, another one might. Whether it is blocked must not
depend on the time: it stays so until an account changes, and is not looked at again before.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import islice

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.admission import Door, is_bounded
from parrot_backend.core.scheduling.cost_terms import Work
from parrot_backend.core.scheduling.engine_index import Measure, by_room
from parrot_backend.core.scheduling.holders import Holders
from parrot_backend.core.scheduling.placement import ClusterView

#: So many engines are looked at by load until enough of them take a request.
_LOOKS = 32
#: So many are looked at to see whether any does.
_FEW = 8
#: Of those with room, so many.
_PROBES = 4
#: So long an output is where it is not known whose.
_USUAL_TOKENS = 256
_LEAST = -(1 << 62)


def by_delay(engine: EngineState) -> int:
    """Least time for an output of usual length first, with that by which others are delayed."""
    outlook = engine.outlook
    return int(1e6 * (_USUAL_TOKENS + outlook.weight) * outlook.step_s)


def by_bulk_share(engine: EngineState) -> int:
    """Least use of what bulk work may take of the time per token first."""
    load = engine.load
    if not load.num_latency:
        return _LEAST
    return _share(engine, load.decodes, load.read_tokens, keeps_s=load.config.latency_tpot_s)


def by_bounded_share(engine: EngineState) -> int:
    """The same of what latency-sensitive work may take among itself."""
    load = engine.load
    if not load.bounded_decodes:
        return _LEAST
    keeps_s = load.config.latency_tpot_s if load.config.bounds_latency else None
    return _share(engine, load.bounded_decodes, load.bounded_read_tokens, keeps_s=keeps_s)


def _share(engine: EngineState, decodes: int, context: int, *, keeps_s: float | None) -> int:
    outlook = engine.outlook
    model, bound_s = outlook.model, min(outlook.tpot_s, keeps_s or math.inf, 1.0)
    step_s = model.base_s + model.per_decode_s * decodes + model.per_context_token_s * context
    return int(1e9 * step_s / max(bound_s, 2 * (model.base_s + model.per_decode_s)))


class Shortlist:
    """The engines that come into question for one request.

    Args:
        request: It is to be placed.
        work: What it brings along.
        holders: Which engines hold some of its prompt.
        view: The cluster.
        config: Settings of the policy.
    """

    def __init__(
        self,
        request: Request,
        work: Work,
        holders: Holders,
        view: ClusterView,
        config: CostConfig,
    ) -> None:
        self._request = request
        self._work = work
        self._holders = holders
        self._free = view.free
        self._now_s = view.now_s
        self._config = config
        self._need_tokens, self._chain = request.need_tokens, request.sharing
        objective_class = request.objective.objective_class
        is_bulk = objective_class is ObjectiveClass.THROUGHPUT
        self._share: Measure = by_bulk_share if is_bulk else by_bounded_share
        bounded = is_bounded(request, view)
        self._door = Door(work, objective_class, config, is_bounded=bounded)
        self._avoided = view.avoided([request])

    def taking(self) -> Collection[EngineState]:
        """Return engines that take the request; nothing if it is blocked."""
        number = self._config.shortlist
        some = self._some_taking()
        if not some:
            return ()
        near = self._taking_near(2 * number)
        found = {engine.id: engine for engine in self._least_loaded(near, number)}
        for engine in self._holding(2 * number):
            if engine.id not in found and self._takes(engine):
                found[engine.id] = engine
        return found.values() or some

    def has_several(self) -> bool:
        """Tell whether more than one engine has a slot."""
        return len(self._free.leading(by_delay, 2)) > 1

    def any(self, number: int) -> dict[EngineId, EngineState]:
        """Return engines whether or not they take the request: all, if they are few."""
        near = self._free.leading(by_delay, 2 * number + 1)
        if len(near) > 2 * number:
            near = [*self._least_loaded(near, number), *self._holding(2 * number)]
        near.sort(key=lambda engine: engine.order)
        return {engine.id: engine for engine in near}

    def _taking_near(self, most: int) -> list[EngineState]:
        found = []
        for engine in islice(self._free.walk(by_delay), _LOOKS):
            if self._takes(engine):
                found.append(engine)
                if len(found) == most:
                    break
        return found

    def _least_loaded(self, engines: list[EngineState], number: int) -> list[EngineState]:
        if len(engines) <= number:
            return engines
        output_tokens, now_s = self._work.output_tokens, self._now_s
        loads: list[tuple[float, int, EngineState]] = []
        for engine in engines:
            outlook, until_s = engine.outlook, engine.load.prefill_until_s
            wait_s = now_s if now_s >= until_s else until_s
            delay_s = wait_s + (output_tokens + outlook.weight) * outlook.step_s
            loads.append((delay_s, engine.order, engine))
        loads.sort()  # the order of joining tells all apart
        return [engine for _, _, engine in loads[:number]]

    def _holding(self, most: int) -> list[EngineState]:
        found: list[EngineState] = []
        for engine_id in self._holders.first(4 * most):
            engine = self._free.get(engine_id)
            if engine is not None:
                found.append(engine)
                if len(found) == most:
                    break
        return found

    def _some_taking(self) -> list[EngineState]:
        """Return nothing if it is blocked; else one engine that takes it, or more."""
        engines = self._free.leading(by_delay, _FEW + 1)
        if len(engines) <= _FEW:
            return [engine for engine in engines if self._takes(engine)]
        few = self._free.up_to(by_room, -self._need_tokens, 2 * _FEW)
        if few is not None:
            few += self._holding(2 * _FEW)  # they may need less
            return [engine for engine in few if self._takes(engine)]
        # There is room, so the first ones that have some are the last ones to refuse it.
        num_roomy = 0
        for engine in self._free.walk(self._share):
            if engine.fits(self._need_tokens):
                if self._takes(engine):
                    return [engine]
                num_roomy += 1
                if num_roomy == _PROBES:
                    break
        return []

    def _takes(self, engine: EngineState) -> bool:
        if self._avoided and engine.id in self._avoided:
            return False
        tokens = self._need_tokens
        if self._chain:
            # What it holds needs no look where room is counted by what is in use.
            held = 0 if engine.working_set is not None else self._holders.tokens(engine.id)
            tokens = engine.added_tokens(self._request, held, tokens)
        reads_tokens: int | None = None
        if engine.info.repeated_read < 1.0:
            reads_tokens = engine.read_tokens(self._request, self._work.context_tokens)
        return self._door.admits(engine, tokens, context_tokens=reads_tokens)
