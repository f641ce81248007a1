"""The policy that vLLM's scheduler asks: joins the queue, pacing, room, prefixes and reports.

Pure: it sees vLLM only through ``CoreSeam`` and ``CoreRequest``. Requests without hints are never
touched; where some with hints are around, they count as members of task groups.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from itertools import islice, takewhile
from typing import Any

from parrot_backend.core.step_time import StepTimeFitter, StepWork
from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam
from parrot_backend.vllm_plugin.admission import Admission
from parrot_backend.vllm_plugin.calls import Calls
from parrot_backend.vllm_plugin.hints import Hints, RequestClass, changed_hints, parse_hints
from parrot_backend.vllm_plugin.keeper import PrefixKeeper
from parrot_backend.vllm_plugin.options import PluginOptions
from parrot_backend.vllm_plugin.pacing import Pacer, StepPlan
from parrot_backend.vllm_plugin.report import ReportLog
from parrot_backend.vllm_plugin.room import RoomMaker
from parrot_backend.vllm_plugin.splicer import Splicer
from parrot_backend.vllm_plugin.step_work import work_of
from parrot_backend.vllm_plugin.waiting import WaitingRequests

logger = logging.getLogger(__name__)

#: What a request without hints counts as where hinted ones are around.
_UNHINTED_CLASS = RequestClass.TASK_GROUP

#: Order of requests when their hints are not to count.
_NO_ORDER = Hints(request_class=_UNHINTED_CLASS)
_FILL = Hints(request_class=RequestClass.FILL)

#: So many waiting latency-sensitive requests are looked at before a step.
_MAX_LOOKED_AT = 8


class ApplicationPolicy:
    """A ``seams.Hooks``.

    Args:
        core: vLLM's scheduler.
        options: Which parts are on.
    """

    def __init__(self, core: CoreSeam, options: PluginOptions) -> None:
        self._core = core
        self.options = options
        self.waiting: WaitingRequests[CoreRequest] = WaitingRequests(options.waiting())
        self.keeper = PrefixKeeper(core, options)
        self.fitter = StepTimeFitter()
        self._pacer = Pacer(options.pacing())
        self._room = RoomMaker(core, self.keeper)
        self._admission = Admission(core, self._room, options)
        self._splicer = Splicer(core, self._learn)
        # With how often it had been preempted when it last began to wait.
        self._alive: dict[CoreRequest, int] = {}
        self._has_begun: set[CoreRequest] = set()
        self._named: dict[str, CoreRequest] = {}
        self._works: list[tuple[StepWork, float]] = []
        self._last_done_s = 0.0
        self._has_warned = False
        self.reports = ReportLog(self._changes, self._snapshot)
        self._calls = Calls(self)

    @property
    def is_idle(self) -> bool:
        """Nothing with hints is around, nothing is pinned, and nothing is left to tell."""
        return not (self._alive or self.keeper.num_pinned_blocks or self.keeper.has_changes)

    # --- requests ----------------------------------------------------------------------------

    def admit(self, request: CoreRequest, extra_args: dict[str, Any] | None, now_s: float) -> None:
        """A request has come: read its hints."""
        raw = None if extra_args is None else extra_args.get("parrot")
        hints, problems = parse_hints(raw, now_s)
        self._warn(problems)
        request.request_class = _UNHINTED_CLASS
        if hints is None:
            return
        self._give(request, hints)
        # One that is kept back begins to wait when it goes on.
        self._alive[request] = request.num_preemptions if hints.after is None else -1
        if hints.name is not None:
            self._named[hints.name] = request
        if hints.after is None:
            self._learn(request)

    def holds_back(self, request: CoreRequest) -> bool:
        """Tell whether a new request must wait for the output of another."""
        return self._splicer.keeps(request)

    def arrived(self, request: CoreRequest) -> None:
        """A request that waits for the output of another is here."""
        self._splicer.add(request)

    def enqueue(self, request: CoreRequest, now_s: float) -> None:
        """A request with hints waits, for the first time or again."""
        if self._alive[request] != request.num_preemptions:
            self._alive[request] = request.num_preemptions
            request.waits_since_s = now_s
        hints = self._ordered_by(request.hints)
        self.waiting.add(request, hints, request.arrival_s, request.waits_since_s)

    def update(self, name: str, raw: object, now_s: float) -> None:
        """Change the hints of a request that waits or runs; unknown names are ignored."""
        request = self._named.get(name)
        if request is None:
            return
        hints, problems = changed_hints(request.hints, raw, now_s)
        self._warn(problems)
        if hints is None:
            return
        # It goes by the name under which it is known, and waits for whom it waits.
        hints = replace(hints, name=name, after=request.hints.after, gap_at=request.hints.gap_at)
        self._give(request, hints)
        if request in self.waiting:
            self.waiting.update(request, self._ordered_by(hints))
        self._core.sync_priority(request)

    def ended(self, request: CoreRequest, *, is_complete: bool) -> None:
        """A request has ended, well or not, and is about to give back its blocks."""
        self._room.forget(request)
        if request.hints is None:
            return
        self._alive.pop(request, None)
        self._has_begun.discard(request)
        if self._named.get(request.hints.name) is request:
            del self._named[request.hints.name]
        self._splicer.ended(request, is_complete=is_complete)
        if is_complete:
            self.keeper.ended(request, request.hints)

    def _ordered_by(self, hints: Hints) -> Hints:
        """Return the part of hints that the queue goes by."""
        if not self.options.order:
            return _NO_ORDER if hints.request_class is not RequestClass.FILL else _FILL
        return hints if self.options.gang else replace(hints, group=None)

    def _learn(self, request: CoreRequest) -> None:
        self.keeper.learn(request, request.hints, request.arrival_s)

    def _give(self, request: CoreRequest, hints: Hints) -> None:
        request.hints = hints
        request.request_class = hints.request_class
        request.tpot_s = hints.tpot_s

    def _warn(self, problems: tuple[str, ...]) -> None:
        if problems and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Parrot: hints ignored (%s); further ones are ignored silently", "; ".join(problems)
            )

    # --- admission, within a step ------------------------------------------------------------

    def precedes(self, hinted: CoreRequest, unhinted: CoreRequest) -> bool:
        """Tell which of two waiting requests goes first."""
        return self._admission.precedes(hinted, unhinted)

    def may_begin(self, request: CoreRequest) -> bool:
        """Tell whether the next waiting request may begin in this step."""
        return self._admission.may_begin(request)

    # --- steps -------------------------------------------------------------------------------

    def before_step(self, now_s: float) -> StepPlan[CoreRequest]:
        """Choose who takes part in the next step."""
        self._admission.set_time(now_s)
        self.waiting.promote_old(now_s)
        self.keeper.expire(now_s)
        self._room.begin_step()
        urgent = self._urgent()
        if self.options.preempt and self.options.order:
            for request in urgent:
                self._room.make_for(request, now_s)
        running = self._core.running_requests()
        model = self.fitter.model if self.options.pace else None
        heads = self._heads()
        must_admit = self._core.num_free_slots() > 0 and any(map(self._admission.is_old, heads))
        plan = self._pacer.plan(running, urgent, model, now_s, must_admit=must_admit)
        if not running:
            for request in heads:
                self._room.reclaim_for(request)
        self._room.make_for_step(plan.order, plan.held)
        self._admission.begin_step(plan)
        return plan

    def _heads(self) -> list[CoreRequest]:
        """Return the waiting requests of which one goes first: with hints, and without."""
        unhinted = self._core.first_unhinted()
        heads = [] if unhinted is None else [unhinted]
        return [*heads, self.waiting.first()] if self.waiting else heads

    def step_made(
        self, computed: list[tuple[CoreRequest, int]], begun: list[CoreRequest], now_s: float
    ) -> None:
        """A step is on its way."""
        if begun:
            tokens = dict(computed)
            for request in begun:
                # Some of vLLM's model runners list here what goes on after a preemption, too.
                if request.hints is not None and request not in self._has_begun:
                    self._has_begun.add(request)
                    self._begun(request, request.context_tokens - tokens[request], now_s)
        self._works.append((work_of(computed), now_s))

    def _begun(self, request: CoreRequest, cached_tokens: int, now_s: float) -> None:
        self.waiting.note_admitted(self._ordered_by(request.hints), request.num_tokens)
        self.keeper.begun(request, request.hints, cached_tokens, now_s)

    def step_done(self, now_s: float, *, is_known: bool, is_last: bool) -> None:
        """The results of a step are in."""
        if is_known and self._works:
            work, begun_s = self._works.pop(0)
            # With steps that overlap, one begins when the results of the one before are in.
            self.fitter.observe(work, now_s - max(begun_s, self._last_done_s))
        self._last_done_s = now_s
        self.reports.flush(now_s, is_urgent=is_last)

    def _urgent(self) -> list[CoreRequest]:
        """Return the latency-sensitive requests that could begin next."""

        def is_urgent(request: CoreRequest) -> bool:
            return request.request_class is RequestClass.LATENCY

        return list(takewhile(is_urgent, islice(self.waiting, _MAX_LOOKED_AT)))

    # --- blocks ------------------------------------------------------------------------------

    def stored(self, block_hashes: list[bytes], now_s: float) -> None:
        """Blocks can be found under these hashes."""
        self.keeper.stored(block_hashes, now_s)

    def removed(self, block_hashes: list[bytes], now_s: float) -> None:
        """Blocks cannot be found any more."""
        self.keeper.removed(block_hashes, now_s)

    def cleared(self, now_s: float) -> None:
        """No block can be found any more."""
        self.keeper.cleared(now_s)

    def release_pins(self) -> None:
        """Give back every pinned block."""
        self.keeper.release_all()

    # --- calls, reports and settings ---------------------------------------------------------

    def call(self, name: str, arguments: list[Any], now_s: float) -> Any:
        """Answer a call from the client's side; see ``calls``."""
        return self._calls.answer(name, arguments, now_s)

    def configure(self, options: PluginOptions) -> None:
        """Take other options; for whoever compares them."""
        self.options = self._admission.options = options
        self._pacer = Pacer(options.pacing())
        self.keeper.configure(options)
        waiting = WaitingRequests[CoreRequest](options.waiting())
        old, self.waiting = list(self.waiting), waiting
        for request in old:
            self.enqueue(request, request.waits_since_s)

    def figures(self) -> dict[str, Any]:
        """Return what is counted, and how long steps take; plain data."""
        model = self.fitter.model
        return {
            "step_time": None if model is None else asdict(model),
            "pinned_tokens": self.keeper.num_pinned_blocks * self._core.block_tokens,
            "lost_pins": self.keeper.lost_pins,
            "hit_tokens": self.keeper.hit_tokens,
            "pinned_hit_tokens": self.keeper.pinned_hit_tokens,
            "preempted": self._room.num_preempted,
        }

    def state(self) -> dict[str, Any]:
        """Return what is inside; plain data."""
        return {
            **self.figures(),
            "alive": len(self._alive),
            "named": len(self._named),
            "waiting": len(self.waiting),
            "held": self._admission.num_held if self._alive else 0,
            "staged": len(self._splicer),
            "keeps_prefixes": self._core.can_keep_prefixes,
            "splices": self._core.can_splice,
            "free_blocks": self._core.pool.num_free(),
            "num_blocks": self._core.pool.num_blocks,
        }

    def _changes(self) -> dict[str, Any]:
        return {**self.keeper.take_changes(), **self.figures()} if self.keeper.has_changes else {}

    def _snapshot(self) -> dict[str, Any]:
        return {**self.keeper.snapshot(), **self.figures()}
