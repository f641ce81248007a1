"""The policy that vLLM's scheduler asks: joins the queue, pacing, room, prefixes and reports.

Pure: it sees vLLM only through ``CoreSeam`` and ``CoreRequest``. Requests without hints are never
touched; where some with hints are around, they count as members of task groups.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

from parrot_backend.core.pacing import Pacer, StepPlan
from parrot_backend.core.step_time import StepTimeFitter
from parrot_backend.core.waiting import WaitingRequests
from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam
from parrot_backend.vllm_plugin.admission import Admission
from parrot_backend.vllm_plugin.attention_board import AttentionBoard
from parrot_backend.vllm_plugin.calls import Calls
from parrot_backend.vllm_plugin.figures import Figures
from parrot_backend.vllm_plugin.hints import Hints, RequestClass
from parrot_backend.vllm_plugin.keeper import PrefixKeeper
from parrot_backend.vllm_plugin.options import PluginOptions
from parrot_backend.vllm_plugin.report import ReportLog
from parrot_backend.vllm_plugin.room import RoomMaker
from parrot_backend.vllm_plugin.roster import UNHINTED_CLASS, Roster
from parrot_backend.vllm_plugin.splicer import Splicer
from parrot_backend.vllm_plugin.steady import SteadyDecoding
from parrot_backend.vllm_plugin.step_times import StepTimes
from parrot_backend.vllm_plugin.step_work import work_of

#: Order of requests when their hints are not to count.
_NO_ORDER = Hints(request_class=UNHINTED_CLASS)
_FILL = Hints(request_class=RequestClass.FILL)

#: So many waiting latency-sensitive requests are looked at before a step.
_MAX_LOOKED_AT = 8


class ApplicationPolicy:
    """A ``seams.Hooks``.

    Args:
        core: vLLM's scheduler.
        options: Which parts are on.
        attention: What the attention backend counts and is told; None without one.
    """

    def __init__(
        self, core: CoreSeam, options: PluginOptions, attention: AttentionBoard | None = None
    ) -> None:
        self._core = core
        self._attention = attention
        self.options = options
        self.waiting: WaitingRequests[CoreRequest] = WaitingRequests(options.waiting())
        self.keeper = PrefixKeeper(core, options)
        self.fitter = StepTimeFitter()
        self._step_times = StepTimes(self.fitter)
        self._pacer = Pacer(options.pacing())
        self._room = RoomMaker(core, self.keeper)
        self._admission = Admission(core, self._room, options)
        self._splicer = Splicer(core, self._learn)
        self._roster = Roster()
        self._splicer.is_on = options.splice
        self._last_done_s = 0.0
        self._steady = SteadyDecoding(core)
        self._figures = Figures(core, self.keeper, self._room, self.fitter, attention)
        self._switch_attention()
        self.reports = ReportLog(
            lambda: self._figures.changes(self._last_done_s),
            lambda: self._figures.snapshot(self._last_done_s),
        )
        self._calls = Calls(self)

    @property
    def is_idle(self) -> bool:
        """Nothing with hints is around, nothing is pinned, and nothing is left to tell."""
        return not (self._roster or self.keeper.num_pinned_blocks or self.keeper.has_changes)

    # --- requests ----------------------------------------------------------------------------

    def admit(self, request: CoreRequest, extra_args: dict[str, Any] | None, now_s: float) -> None:
        """A request has come: read its hints."""
        self._steady.interrupt()
        if self.is_idle:
            self._step_times.lose_track()
        hints = self._roster.admit(request, extra_args, now_s)
        if hints is None:
            return
        if hints.name is not None:
            self._splicer.forget_output(hints.name)
        if self._splicer.keeps(request):
            return
        if hints.after is not None:
            self._roster.warn(("after: this engine does not put outputs into prompts",))
        self._learn(request)

    def holds_back(self, request: CoreRequest) -> bool:
        """Tell whether a new request must wait for the output of another."""
        return self._splicer.keeps(request)

    def arrived(self, request: CoreRequest) -> None:
        """A request that waits for the output of another is here."""
        self._splicer.add(request)

    def enqueue(self, request: CoreRequest, now_s: float) -> None:
        """A request with hints waits, for the first time or again."""
        self._roster.waits(request, now_s)
        hints = self._ordered_by(request.hints)
        self.waiting.add(request, hints, request.arrival_s, request.waits_since_s)

    def update(self, name: str, raw: object, now_s: float) -> None:
        """Change the hints of a request that waits or runs; unknown names are ignored."""
        changed = self._roster.change(name, raw, now_s)
        if changed is None:
            return
        self._steady.interrupt()
        request, before = changed
        hints: Hints = request.hints
        if (hints.prefixes, hints.retain) != (before.prefixes, before.retain):
            self._learn(request)
        if request in self.waiting:
            self.waiting.update(request, self._ordered_by(hints))
        self._core.sync_priority(request)

    def ended(self, request: CoreRequest, *, is_complete: bool) -> None:
        """A request has ended, well or not, and is about to give back its blocks."""
        self._room.forget(request)
        if request.hints is None:
            return
        self._roster.remove(request)
        if not self._roster:
            self._let_all_go()
        self._splicer.ended(request, is_complete=is_complete)
        if is_complete:
            self.keeper.ended(request, request.hints)

    def _let_all_go(self) -> None:
        """Forget who was held: nobody plans steps until a request with hints comes."""
        for request in self._core.running_requests():
            request.held_since_s = None

    def _ordered_by(self, hints: Hints) -> Hints:
        """Return the part of hints that the queue goes by."""
        if not self.options.order:
            return _NO_ORDER if hints.request_class is not RequestClass.FILL else _FILL
        return hints if self.options.gang else replace(hints, group=None)

    def _learn(self, request: CoreRequest) -> None:
        self.keeper.learn(request, request.hints, request.arrival_s)

    # --- admission, within a step ------------------------------------------------------------

    def precedes(self, hinted: CoreRequest, unhinted: CoreRequest) -> bool:
        """Tell which of two waiting requests goes first."""
        return self._admission.precedes(hinted, unhinted)

    def may_begin(self, request: CoreRequest) -> bool:
        """Tell whether the next waiting request may begin in this step."""
        return self._admission.may_begin(request)

    # --- steps -------------------------------------------------------------------------------

    def goes_on(self) -> bool:
        """Tell whether the next step needs no plan, because it is like the one before."""
        return self._steady.goes_on()

    def before_step(self, now_s: float) -> StepPlan[CoreRequest]:
        """Choose who takes part in the next step."""
        self._admission.set_time(now_s)
        self.waiting.promote_old(now_s)
        self.keeper.expire(now_s)
        self._room.begin_step()
        heads = self._heads()
        for request in heads:
            self._room.reclaim_for(request, now_s)
        may_preempt = self.options.preempt and self.options.order
        # Who finds no room is not coming yet: nobody needs to be held for it.
        coming = [
            request
            for request in self._urgent()
            if self._room.make_for(request, now_s, may_preempt=may_preempt)
        ]
        model = self.fitter.model if self.options.pace else None
        plan = self._pacer.plan(
            self._core.running_requests(),
            coming,
            model,
            now_s,
            must_admit=any(map(self._admission.must_begin, heads)),
            next_is_fill=all(head.request_class is RequestClass.FILL for head in heads),
            group_comes=self._admission.group_comes(heads),
        )
        self._room.make_for_step(plan.order, plan.held)
        self._admission.begin_step(plan)
        self._steady.planned(plan)
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
                if self._roster.begins(request):
                    self._begun(request, request.context_tokens - tokens[request], now_s)
        self._step_times.made(work_of(computed), now_s)

    def _begun(self, request: CoreRequest, cached_tokens: int, now_s: float) -> None:
        self.waiting.note_admitted(self._ordered_by(request.hints), request.num_tokens)
        self.keeper.begun(request, request.hints, cached_tokens, now_s)

    def step_done(self, now_s: float, *, is_known: bool, is_last: bool) -> None:
        """The results of a step are in."""
        num_running = 0 if is_last else len(self._core.running_requests())
        self._step_times.done(now_s, num_running, is_known=is_known)
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

    def flush(self, now_s: float) -> None:
        """Tell what there is to tell, since no step may follow."""
        self.reports.flush(now_s, is_urgent=True)

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
        self._steady.interrupt()
        self._pacer = Pacer(options.pacing())
        self.keeper.configure(options)
        self._splicer.is_on = options.splice
        self._switch_attention()
        waiting = WaitingRequests[CoreRequest](options.waiting())
        old, self.waiting = list(self.waiting), waiting
        for request in old:
            self.enqueue(request, request.waits_since_s)

    def _switch_attention(self) -> None:
        if self._attention is not None:
            self._attention.is_on = self.options.share_attention

    def state(self) -> dict[str, Any]:
        """Return what is inside; plain data."""
        return {
            **self._figures.all(),
            "alive": len(self._roster),
            "named": self._roster.num_named,
            "waiting": len(self.waiting),
            "held": self._admission.num_held if self._roster else 0,
            "staged": len(self._splicer),
            "keeps_prefixes": self._core.can_keep_prefixes,
            "splices": self._core.can_splice and self.options.splice,
            "free_blocks": self._core.pool.num_free(),
            "num_blocks": self._core.pool.num_blocks,
        }
