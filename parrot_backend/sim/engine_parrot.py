"""How an engine with our plug-in makes steps.

The order of waiting requests and the pacing of steps are the very classes of the plug-in; door and
room follow ``vllm_plugin.admission`` and ``vllm_plugin.policy``. Where pacing could hold nobody,
it is not asked: steps of decoding alone are then alike until a request comes or ends.
"""

from __future__ import annotations

from parrot_backend.core.criteria import Objective
from parrot_backend.core.pacing import Pacer, StepPlan
from parrot_backend.core.request_class import RequestClass
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.engine_keeper import Keeper
from parrot_backend.sim.engine_live import Live
from parrot_backend.sim.engine_machine import Machine
from parrot_backend.sim.engine_queue import LiveQueue
from parrot_backend.sim.engine_room import Room

#: What has waited longer goes first (the plug-in's ``max_wait_s``).
_MAX_WAIT_S = 30.0

#: So many waiting latency-sensitive requests are looked at before a step.
_MAX_LOOKED_AT = 8

#: Steps of decoding for which a plan is good in which nobody is held (the plug-in's number).
_STEPS_PER_PLAN = 8

#: A step may have no work because everybody is held; pacing lets somebody in after that.
_MAX_PLANS = 3


class ParrotRules:
    """Order by class, deadline, tenant, group and path; steps paced for who waits for them.

    Args:
        machine: What it decides for.
        keeper: Its boundaries and pins.
        model: How long steps take, as the plug-in learns it.
    """

    def __init__(self, machine: Machine, keeper: Keeper, model: StepTimeModel) -> None:
        self._machine = machine
        self._keeper = keeper
        self._model = model
        self._pacer = Pacer()
        self._waiting = LiveQueue(_MAX_WAIT_S)
        self._room = Room(machine, keeper, self._preempt)
        self._now_s = 0.0
        #: Alive requests of each class, and those with a target per token.
        self._num_alive = [0] * len(RequestClass)
        self._num_targets = 0
        #: Who has begun with its prompt and is not done, and whether the last step held anybody.
        self._prefilling: list[Live] = []
        self._holds = False

    @property
    def num_waiting(self) -> int:
        """Requests that have no memory."""
        return len(self._waiting)

    def learn(self, model: StepTimeModel) -> None:
        """Steps take another time now."""
        self._model = model

    def add(self, live: Live) -> bool:
        """A request has come; it can take a place only from others than its like."""
        self._count(live, 1)
        self._waiting.add(live)
        return self._machine.num_free_slots > 0 or not self._is_alike

    def remove(self, live: Live) -> None:
        """A request is given up that waits."""
        self._waiting.remove(live)
        self._room.forget(live)
        self._count(live, -1)

    def update(self, live: Live, objective: Objective, remaining: int) -> None:
        """More is known of a request."""
        self._count(live, -1)
        live.set_objective(objective, remaining)
        self._count(live, 1)
        self._waiting.update(live)

    def ended(self, live: Live) -> None:
        """A request that ran has ended or was given up."""
        self._room.forget(live)
        self._count(live, -1)
        if live in self._prefilling:
            self._prefilling.remove(live)

    def _count(self, live: Live, change: int) -> None:
        self._num_alive[live.request_class] += change
        self._num_targets += change * (live.tpot_s is not None)

    def plan(self, now_s: float) -> int:
        """Choose what the next steps compute; return how many are alike, 0 for none."""
        self._now_s = now_s
        for _ in range(_MAX_PLANS):
            num_steps = self._plan(now_s)
            if num_steps or not (self._machine.running or self._waiting):
                return num_steps
        return 0

    # --- one step -----------------------------------------------------------------------------

    def _plan(self, now_s: float) -> int:
        machine, waiting = self._machine, self._waiting
        batch = machine.batch
        self._keeper.expire(now_s)
        is_alike = self._is_alike
        if is_alike and not (waiting or self._prefilling or self._holds):
            num_free = machine.cache.num_free
            if batch.num_requests and batch.next_blocks <= num_free:
                return batch.num_steps_within(num_free, batch.steps_to_end)
        self._room.begin_step()
        coming: list[Live] = []
        if waiting:
            waiting.promote_old(now_s)
            self._room.reclaim_for(waiting.first(), now_s)
            if len(waiting) > 1 or not is_alike:
                urgent = waiting.urgent(_MAX_LOOKED_AT)
                coming = [live for live in urgent if self._room.make_for(live, now_s)]
        if is_alike and not self._holds:
            plan = self._alike(coming)
        else:
            plan = self._paced(coming, now_s)
            self._room.make_for_step(plan.order, plan.held, now_s)
            self._seat(plan)
        was_preempted = self._make_room(plan.order, now_s)
        if self._prefilling or waiting or plan.order:
            self._compute(plan, may_admit=not was_preempted)
            known = dict.fromkeys((*self._prefilling, *(live for live, _ in machine.chunks)))
            self._prefilling = [x for x in known if x.computed < x.target_tokens]
        self._holds = bool(plan.held)
        if machine.chunks:
            return 1
        if not batch.num_requests:
            return 0
        if plan.held or was_preempted:
            return 1
        num_steps = batch.num_steps_within(machine.num_free, batch.steps_to_end)
        # Pins are given back to who has waited for long enough.
        is_settled = is_alike and not (waiting and self._keeper.pins)
        return num_steps if is_settled else min(num_steps, _STEPS_PER_PLAN)

    @property
    def _is_alike(self) -> bool:
        """Whether pacing could hold nobody: no bulk work is there, or nothing else.

        With a target among them, no others than latency-sensitive requests may be there.
        """
        latency, _, throughput, fill = self._num_alive
        if latency:
            return not (throughput or fill or self._num_targets)
        return not fill

    def _alike(self, coming: list[Live]) -> StepPlan[Live]:
        """Return what pacing would, but for those that decode anyway."""
        max_tokens = None
        if coming and len(self._waiting) > 1:
            max_tokens = self._machine.batch.num_requests
            max_tokens += sum(live.remaining_tokens for live in (*self._prefilling, *coming))
        order = sorted(self._prefilling, key=lambda live: live.request_class)
        return StepPlan(order, [], max_tokens, RequestClass.FILL)

    def _paced(self, coming: list[Live], now_s: float) -> StepPlan[Live]:
        """Return who takes part in the next step, in the order in which they get tokens."""
        running = list(self._machine.running)
        heads = [self._waiting.first()] if self._waiting else []
        return self._pacer.plan(
            running,
            coming,
            self._model,
            now_s,
            must_admit=any(map(self._must_begin, heads)),
            next_is_fill=all(head.request_class is RequestClass.FILL for head in heads),
            group_comes=any(map(self._group_comes, heads)),
        )

    def _seat(self, plan: StepPlan[Live]) -> None:
        """Put those that decode into the batch, and take out those that are held."""
        batch = self._machine.batch
        for live in plan.held:
            if live.joined >= 0:
                batch.remove(live)
        for live in plan.order:
            if live.joined < 0 and live.is_decoding:
                batch.add(live)

    def _make_room(self, order: list[Live], now_s: float) -> bool:
        """As vLLM does: the last in order give up their blocks until the others can go on."""
        machine = self._machine
        most = machine.spec.max_step_tokens
        was_preempted = False
        while machine.running:
            needed = machine.batch.next_blocks
            for live in order:
                if not live.is_decoding:
                    needed += machine.num_blocks_for(live, min(live.remaining_tokens, most))
            if needed > machine.cache.num_free:
                self._keeper.reclaim(needed - machine.cache.num_free)
            if needed <= machine.cache.num_free:
                break
            victim = order.pop() if order else self._newest()
            self._preempt(victim, now_s)
            was_preempted = True
        return was_preempted

    def _newest(self) -> Live:
        """Return who began last of those that are least urgent."""
        return max(reversed(self._machine.running), key=lambda live: live.request_class)

    def _compute(self, plan: StepPlan[Live], *, may_admit: bool) -> None:
        machine, waiting = self._machine, self._waiting
        machine.take_for_decodes()
        budget = machine.spec.max_step_tokens
        if plan.max_tokens is not None:
            budget = min(budget, plan.max_tokens)
        budget -= machine.batch.num_requests
        for live in plan.order:
            if not live.is_decoding and budget > 0:
                budget -= self._chunk(live, budget)
        while may_admit and budget > 0 and waiting and machine.num_free_slots > 0:
            live = waiting.first()
            node, depth = machine.find(live)
            if not (self._may_begin(live, plan) and machine.has_room(live, node, depth)):
                return
            waiting.pop()
            machine.begin(live, node, depth, self._now_s)
            self._keeper.begun(live, self._now_s)
            budget -= self._chunk(live, budget)

    def _chunk(self, live: Live, budget: int) -> int:
        tokens = min(live.target_tokens - live.computed, budget)
        self._machine.compute(live, tokens)
        self._keeper.stored(live, self._now_s)
        return tokens

    # --- the door -----------------------------------------------------------------------------

    def _is_old(self, live: Live) -> bool:
        if live.request_class is RequestClass.FILL:
            return False
        return self._now_s - live.waits_since_s > _MAX_WAIT_S

    def _must_begin(self, head: Live) -> bool:
        return (
            head.request_class is not RequestClass.LATENCY
            and self._is_old(head)
            and self._room.has_room_for(head)
        )

    def _group_comes(self, head: Live) -> bool:
        return head.request_class is RequestClass.TASK_GROUP and self._room.has_room_for(head)

    def _may_begin(self, live: Live, plan: StepPlan[Live]) -> bool:
        if not self._machine.running:
            return True  # or nothing would ever happen
        if self._room.was_preempted(live):
            return False  # what took its place has just begun
        if live.request_class is RequestClass.LATENCY:
            return True
        if self._is_old(live):
            self._room.spare(live)
            return True
        if live.request_class is RequestClass.FILL and not self._room.is_spare_for(live):
            return False
        return live.request_class <= plan.admits

    def _preempt(self, live: Live, now_s: float) -> None:
        self._machine.preempt(live, now_s)
        if live in self._prefilling:
            self._prefilling.remove(live)
        self._waiting.add(live)
