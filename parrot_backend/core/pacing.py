"""Who runs in the next step, so that nobody who is waited for is kept by who is not.

A task group is waited for as much as a single request, and prompts take the same time of an engine
whether in one step or in many: cut into chunks they only end later, and who decodes beside them
does not end earlier. So where no time per token is asked for, only bulk work is paced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from parrot_backend.core.request_class import RequestClass
from parrot_backend.core.step_budget import PacedRequest, StepBudget
from parrot_backend.core.step_time import StepTimeModel, StepWork

T = TypeVar("T", bound=PacedRequest)


@dataclass(frozen=True, slots=True)
class PacingOptions:
    """Limits of pacing.

    Attributes:
        slowdown: Without a target, a latency-sensitive request's step may take this many times what
            it would take without bulk work.
        max_hold_s: A request that was held for longer is let in regardless, one in each step, but
            prefill only in every second step: it takes the turn of other prefill.
        min_chunk_tokens: Smaller prefill chunks are not worth their overhead; at least 1.
        spare_share: Prefill ahead of need may lengthen a step by this share of what it takes
            without bulk work. Where a step's time is spent on reading weights and KV, as on GPUs,
            that is a lot of tokens; on CPUs it is next to none.
        idle_fill_steps: When there is nothing else to do, it takes as long as so many steps of one
            decoding request at a time.
    """

    slowdown: float = 2.0
    max_hold_s: float = 2.0
    min_chunk_tokens: int = 32
    spare_share: float = 0.1
    idle_fill_steps: float = 4.0


@dataclass(frozen=True, slots=True)
class StepPlan(Generic[T]):
    """What the next step computes. The engine hands out ``max_tokens`` greedily in ``order``.

    Attributes:
        order: Requests that run, in the order in which they get tokens.
        held: Requests that keep their KV and sit this step out.
        max_tokens: Token budget of the step, at least 1; None for the engine's own.
        admits: The least urgent class that may be admitted.
    """

    order: list[T]
    held: list[T]
    max_tokens: int | None
    admits: RequestClass


class Pacer:
    """Plans one step after the other; between steps it remembers only whose turn it was.

    Latency-sensitive requests always run, prefill beside their decodes in chunks that keep the
    target; where there is no target, so do members of task groups. Others run as far as the step
    stays within the target; their prefill waits for pending prefill of those. Whoever is left over
    is held, and comes first in its class next time. Prefill ahead of need gets what is spare, and
    only when nobody else is held.
    """

    def __init__(self, options: PacingOptions | None = None) -> None:
        self._options = options or PacingOptions()
        self._start_afresh()

    def _start_afresh(self) -> None:
        #: Whether the last step let overdue prefill in; then the next one is for the others.
        self._had_turn = False
        #: Whether the last step had work only for requests that were still to be admitted.
        self._was_idle = False
        #: Since when others are not admitted.
        self._closed_since_s: float | None = None

    def plan(
        self,
        running: Sequence[T],
        waiting_latency: Sequence[T],
        model: StepTimeModel | None,
        now_s: float,
        *,
        must_admit: bool = False,
        next_is_fill: bool = False,
        group_comes: bool = False,
    ) -> StepPlan[T]:
        """Return what the next step computes, and note on the requests who is held.

        Args:
            running: Requests that hold KV, in the engine's order.
            waiting_latency: Latency-sensitive requests about to be admitted, in order.
            model: How long a step takes; None if that is not known yet.
            now_s: The current time.
            must_admit: A request of another class has waited for too long: it gets a chunk, before
                the prefill of others that run.
            next_is_fill: Only prefill ahead of need waits to be admitted.
            group_comes: A member of a task group is about to be admitted.
        """
        latency = [each for each in running if each.request_class is RequestClass.LATENCY]
        if model is None or not (latency or waiting_latency):
            return self._unpaced(running, model if next_is_fill else None)
        has_target = any(each.tpot_s is not None for each in (*latency, *waiting_latency))
        served = RequestClass.LATENCY if has_target else RequestClass.TASK_GROUP
        group_comes &= not (has_target or must_admit)
        decoding, prefilling = _served(running, served)
        others, fills, overdue = self._others(running, served, now_s)
        pending = [*prefilling, *waiting_latency]
        step = self._begin(model, decoding, pending)
        # Granted by urgency, but handed out to decodes first: only the last prefill can be cut.
        order, turn = self._grant_overdue(step, overdue)
        group_comes &= not turn
        order = [*decoding, *order]
        _grant_pending(step, decoding, pending)
        held = _grant_decodes(step, others, order)
        rest = [each for each in others if not _decodes(each)]
        waits = pending or must_admit or group_comes
        num_granted = 0 if waits else step.add_prefills(rest, first_regardless=False)
        is_open = not (held or pending or group_comes or rest[num_granted:])
        if next_is_fill or fills:
            step.limit(self._options.spare_share * step.base_s)
        num_fills = step.add_prefills(fills, first_regardless=False) if is_open else 0
        if fills[num_fills:]:
            step.limit(0.0)  # there is nothing to spare for new ones, either
        order += [*turn, *prefilling, *rest[:num_granted], *fills[:num_fills]]
        held += [*rest[num_granted:], *fills[num_fills:]]
        self._had_turn, self._was_idle = bool(turn), not order
        _mark(order, held, now_s)
        if group_comes:
            # How many follow is not known here; all of them are as welcome.
            return StepPlan(order, held, None, RequestClass.TASK_GROUP)
        may_force = overdue is None and not next_is_fill
        admits = self._admit(
            step, now_s, must_admit=must_admit, is_open=is_open, may_force=may_force
        )
        return StepPlan(order, held, step.tokens, admits)

    def _unpaced(self, running: Sequence[T], model: StepTimeModel | None) -> StepPlan[T]:
        """Return a step without latency-sensitive requests.

        If all are ahead of need, it is kept short: one that somebody waits for may come any moment,
        most likely the very one whose predecessor has just ended.
        """
        self._start_afresh()
        for request in running:
            request.held_since_s = None
        max_tokens = None
        if model is not None and all(map(_is_ahead_of_need, running)):
            context_tokens = max((each.context_tokens for each in running), default=0)
            budget_s = self._options.idle_fill_steps * model.predict_s(StepWork.decode(0))
            tokens = model.prefill_tokens_within(budget_s, context_tokens)
            max_tokens = max(tokens, self._options.min_chunk_tokens)
        return StepPlan(list(running), [], max_tokens, RequestClass.FILL)

    def _others(
        self, running: Sequence[T], served: RequestClass, now_s: float
    ) -> tuple[list[T], list[T], T | None]:
        """Return the other requests by urgency, those ahead of need, and the one that is overdue.

        The last is in neither list.
        """
        others = sorted(
            (each for each in running if each.request_class > served),
            key=lambda each: (each.request_class, _held_since_s(each)),
        )
        overdue = self._overdue(others, now_s)
        rest = [each for each in others if each is not overdue]
        fills = [each for each in rest if _is_ahead_of_need(each)]
        return [each for each in rest if not _is_ahead_of_need(each)], fills, overdue

    def _grant_overdue(self, step: StepBudget, overdue: T | None) -> tuple[list[T], list[T]]:
        """Grant the overdue request something; return it as a decode, or as prefill."""
        if overdue is None:
            return [], []
        if _decodes(overdue):
            step.add_decode(overdue, regardless=True)
            return [overdue], []
        step.add_prefills([overdue], first_regardless=True)
        return [], [overdue]

    def _begin(
        self, model: StepTimeModel, decoding: Sequence[T], pending: Sequence[T]
    ) -> StepBudget:
        """Return the budget of a step in which the latency-sensitive decodes run."""
        if decoding:
            work = StepWork(0, len(decoding), sum(each.context_tokens for each in decoding))
        else:
            # The first of them, once its prompt is done.
            work = StepWork.decode(pending[0].context_tokens + pending[0].remaining_tokens)
        base_s = model.predict_s(work)
        target_s = min(self._target_s(each, base_s) for each in decoding or pending)
        budget_s = target_s - base_s
        return StepBudget(model, self._options.min_chunk_tokens, base_s, budget_s, len(decoding))

    def _target_s(self, request: T, base_s: float) -> float:
        """Return how long a step may take for a request, at least ``base_s``.

        A target that cannot be reached even alone is none: to hold everybody would not help.
        """
        if request.tpot_s is None or request.tpot_s < base_s:
            return max(1.0, self._options.slowdown) * base_s
        return request.tpot_s

    def _overdue(self, others: Sequence[T], now_s: float) -> T | None:
        """Return the request that was held longest, if it is time to let it in regardless.

        After a step that had work only for waiting requests, it is time for any: if those found no
        room, nothing else would ever make some.
        """
        held_before_s = math.inf if self._was_idle else now_s - self._options.max_hold_s
        due = [
            each
            for each in others
            if _held_since_s(each) < held_before_s
            and (_decodes(each) or not self._had_turn)
            and (self._was_idle or not _is_ahead_of_need(each))
        ]
        return min(due, key=_held_since_s, default=None)

    def _admit(
        self, step: StepBudget, now_s: float, *, must_admit: bool, is_open: bool, may_force: bool
    ) -> RequestClass:
        """Return the least urgent class that may be admitted, and grant it a chunk.

        The smallest one is granted regardless when nothing was for ``max_hold_s``.
        """
        if must_admit:
            admits = step.add_new(regardless=True)
        else:
            since_s = now_s if self._closed_since_s is None else self._closed_since_s
            is_due = may_force and now_s - since_s > self._options.max_hold_s
            admits = is_open and step.add_new(regardless=is_due)
            self._closed_since_s = None if admits else since_s
        return RequestClass.FILL if admits else RequestClass.LATENCY


def _served(running: Sequence[T], served: RequestClass) -> tuple[list[T], list[T]]:
    """Return who is never held, those that decode and those that do not, the most urgent first.

    The last in order give up their blocks if they run out.
    """
    serving = [each for each in running if each.request_class <= served]
    serving.sort(key=lambda each: each.request_class)
    decoding = [each for each in serving if _decodes(each)]
    return decoding, [each for each in serving if not _decodes(each)]


def _grant_pending(
    step: StepBudget, decoding: Sequence[PacedRequest], pending: Sequence[PacedRequest]
) -> None:
    """Grant the latency-sensitive prompts: in chunks, if one that decodes has a target, else whole.

    Without a target that says more, one that waits for its first token counts as much as one that
    waits for its next, and whole prompts take fewer steps.
    """
    if any(each.tpot_s is not None for each in decoding):
        step.add_prefills(pending, first_regardless=True)
    else:
        step.add_whole(pending)


def _grant_decodes(step: StepBudget, others: Sequence[T], order: list[T]) -> list[T]:
    """Grant the others that decode their token as far as it fits; return those that are held."""
    held = list[T]()
    for request in filter(_decodes, others):
        fits = step.add_decode(request, regardless=False)
        (order if fits else held).append(request)
    return held


def _mark(order: Sequence[PacedRequest], held: Sequence[PacedRequest], now_s: float) -> None:
    """Note since when requests are held."""
    for request in order:
        request.held_since_s = None
    for request in held:
        if request.held_since_s is None:
            request.held_since_s = now_s


def _decodes(request: PacedRequest) -> bool:
    return request.remaining_tokens <= 1


def _is_ahead_of_need(request: PacedRequest) -> bool:
    """Tell whether a request computes a prompt ahead of need; its one token is like any other."""
    return request.request_class is RequestClass.FILL and not _decodes(request)


def _held_since_s(request: PacedRequest) -> float:
    return math.inf if request.held_since_s is None else request.held_since_s
