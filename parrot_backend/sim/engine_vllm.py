"""How vLLM's own scheduler makes steps (read in vLLM 0.32: ``v1/core/sched/scheduler.py``).

Who runs goes on; then waiting requests are let in, first come first served, while tokens of the
step, places and blocks last. A prompt is let in only if all of it fits, and computed in chunks.
When blocks run out, the newest gives up its own and goes to the front of the queue; nobody is let
in in such a step.
"""

from __future__ import annotations

from collections import deque

from parrot_backend.core.criteria import Objective
from parrot_backend.sim.engine_keeper import Keeper
from parrot_backend.sim.engine_live import Live
from parrot_backend.sim.engine_machine import Machine


class VllmRules:
    """First come, first served.

    Args:
        machine: What it decides for.
        keeper: Is told what is computed.
    """

    def __init__(self, machine: Machine, keeper: Keeper) -> None:
        self._machine = machine
        self._keeper = keeper
        self._waiting: deque[Live] = deque()
        #: Who has begun with its prompt and is not done: at most one, the newest.
        self._prefilling: list[Live] = []

    @property
    def num_waiting(self) -> int:
        """Requests that have no memory."""
        return len(self._waiting)

    def add(self, live: Live) -> bool:
        """A request has come; nothing changes for it if others wait or there is no place."""
        self._waiting.append(live)
        return len(self._waiting) == 1 and self._machine.num_free_slots > 0

    def remove(self, live: Live) -> None:
        """A request is given up that waits."""
        self._waiting.remove(live)

    def update(self, live: Live, objective: Objective, remaining: int) -> None:
        """More is known of a request; nothing follows."""
        live.set_objective(objective, remaining)

    def ended(self, live: Live) -> None:
        """A request that ran has ended or was given up."""
        if live in self._prefilling:
            self._prefilling.remove(live)

    def plan(self, now_s: float) -> int:
        """Choose what the next steps compute; return how many steps are like it, 0 for none."""
        machine = self._machine
        batch = machine.batch
        was_preempted = self._make_room(now_s)
        if self._prefilling or (self._waiting and not was_preempted):
            machine.take_for_decodes()
            budget = machine.spec.max_step_tokens - batch.num_requests
            for live in self._prefilling:
                tokens = min(live.target_tokens - live.computed, budget)
                machine.compute(live, tokens)
                budget -= tokens
            if not was_preempted:
                self._admit(budget, now_s)
            for live, _ in machine.chunks:
                self._keeper.stored(live, now_s)
            self._prefilling = [x for x, _ in machine.chunks if x.computed < x.target_tokens]
        if machine.chunks:
            return 1
        if not batch.num_requests:
            return 0
        if was_preempted:
            return 1  # others may be let in after it
        return batch.num_steps_within(machine.num_free, batch.steps_to_end)

    def _make_room(self, now_s: float) -> bool:
        """Preempt the newest until who is left can make a step; tell whether anybody was."""
        machine = self._machine
        was_preempted = False
        while machine.running:
            budget = machine.spec.max_step_tokens - machine.batch.num_requests
            needed = machine.batch.next_blocks
            for live in self._prefilling:
                tokens = min(live.target_tokens - live.computed, budget)
                needed += machine.num_blocks_for(live, tokens)
            if needed <= machine.cache.num_free:
                break
            victim = next(reversed(machine.running))
            self.ended(victim)
            machine.preempt(victim, now_s)
            self._waiting.appendleft(victim)
            was_preempted = True
        return was_preempted

    def _admit(self, budget: int, now_s: float) -> None:
        machine, waiting = self._machine, self._waiting
        while waiting and budget > 0 and len(machine.running) < machine.spec.max_requests:
            live = waiting[0]
            node, depth = machine.find(live)
            if not machine.has_room(live, node, depth):
                return
            waiting.popleft()
            machine.begin(live, node, depth, now_s)
            tokens = min(live.target_tokens - live.computed, budget)
            machine.compute(live, tokens)
            budget -= tokens
