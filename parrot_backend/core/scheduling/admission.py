"""What the placement ``cost`` lets an engine take: the one place where it is decided.

Room is KV memory for what runs together and a slot; so an engine is given what it can hold now, and
what waits does so in our queue, where the order still counts. Beside that, targets for the time per
token are kept, and that of latency-sensitive work against work that nobody waits for: as the
engine's own step times predict it, where they are known, else by the latency capacity in tokens
(paper, section 5.4).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.cost_terms import Work
from parrot_backend.core.scheduling.placement import ClusterView
from parrot_backend.core.step_time import StepTimeModel

#: A step may take so many times as long as with a single request, whatever is kept in general; and
#: where a target is missed even so. Else a slow engine would serve one at a time. As in its pacing.
_SLOWDOWN = 2.0


class Added(NamedTuple):
    """What is to run on an engine beside what runs there already."""

    requests: int = 0
    tokens: int = 0
    context_tokens: int = 0


def is_bounded(request: Request, view: ClusterView) -> bool:
    """Tell whether a request must leave latency-sensitive work its time per token.

    What is old needs room only, unless it wants its tokens quickly itself: while somebody is always
    waited for, an engine may never be free of such work.
    """
    objective = request.objective
    is_latency = objective.objective_class is ObjectiveClass.LATENCY
    return objective.is_bounded and (is_latency or not view.queue.is_old(request))


class Door:
    """What one request may enter: all about it that is the same for each engine.

    Args:
        work: The request.
        objective_class: Its class.
        config: Which times per token are to be kept.
        is_bounded: Whether the request keeps to them.
    """

    __slots__ = (
        "_alone_s",
        "_class",
        "_context_tokens",
        "_is_bounded",
        "_is_bulk",
        "_keeps_s",
        "_model",
        "_target_s",
    )

    def __init__(
        self, work: Work, objective_class: ObjectiveClass, config: CostConfig, *, is_bounded: bool
    ) -> None:
        self._class = objective_class
        self._is_bulk = objective_class is ObjectiveClass.THROUGHPUT
        self._is_bounded = is_bounded
        self._context_tokens = work.context_tokens
        self._target_s = math.inf if self._is_bulk else work.tpot_s
        keeps_it = self._is_bulk or config.bounds_latency
        self._keeps_s = config.latency_tpot_s if keeps_it else None
        self._model: StepTimeModel | None = None
        self._alone_s = 0.0

    def admits(
        self, engine: EngineState, tokens: int, requests: int = 1, context_tokens: int | None = None
    ) -> bool:
        """Tell whether an engine may run the request.

        Args:
            engine: It has a free slot, or not.
            tokens: What it would hold beside what it holds, for this request and others.
            requests: How many it would run beside what it runs, this one among them.
            context_tokens: What their decodes would read; None for this one alone.
        """
        if not engine.fits(tokens, requests):
            return False
        if not self._is_bounded:
            return True
        load = engine.load
        if self._is_bulk:
            if not load.num_latency:
                return True
            runs_with, context = load.decodes, load.read_tokens
        else:
            # It does not wait for bulk work to drain: the engine holds that back for it.
            runs_with, context = load.bounded_decodes, load.bounded_read_tokens
            if not runs_with and requests == 1:
                return True
        target_s, keeps_s = min(load.tpot_s, self._target_s), self._keeps_s
        if target_s == math.inf and keeps_s is None:
            return True
        model = engine.step_time
        if model is None:
            return engine.admits(self._class, tokens, requests)
        if model is not self._model:
            self._model = model
            self._alone_s = model.base_s + model.decode_cost_s(self._context_tokens)
        if context_tokens is None:
            context_tokens = self._context_tokens
        step_s = (
            model.base_s
            + model.per_decode_s * (runs_with + requests)
            + model.per_context_token_s * (context + context_tokens)
        )
        alone_s = self._alone_s
        least_s = _SLOWDOWN * alone_s
        bound_s = target_s if alone_s <= target_s else least_s
        return step_s <= (bound_s if keeps_s is None else min(bound_s, max(keeps_s, least_s)))


def admits(
    engine: EngineState,
    added: Added,
    work: Work,
    objective_class: ObjectiveClass,
    config: CostConfig,
    *,
    is_bounded: bool,
) -> bool:
    """Tell whether an engine may run one more request of a class; see :class:`Door`."""
    door = Door(work, objective_class, config, is_bounded=is_bounded)
    return door.admits(engine, added.tokens, added.requests, added.context_tokens)
