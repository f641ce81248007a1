"""Room for those who need it, as the plug-in makes it (``vllm_plugin.room``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parrot_backend.core.request_class import RequestClass
from parrot_backend.sim.engine_keeper import Keeper
from parrot_backend.sim.engine_live import Live
from parrot_backend.sim.engine_machine import Machine

#: Share of the blocks that prompts computed ahead of need must leave free.
_SPARE_SHARE = 0.1

#: Who waited longer gets the room that pins take: latency-sensitive requests, and others.
_PIN_PATIENCE_S = 0.5
_LONG_PIN_PATIENCE_S = 3.0


class Room:
    """Makes room between two steps.

    Args:
        machine: Whose room it is.
        keeper: Gives back pins.
        preempt: Puts a request that runs back into the queue.
    """

    def __init__(
        self, machine: Machine, keeper: Keeper, preempt: Callable[[Live, float], None]
    ) -> None:
        self._machine = machine
        self._keeper = keeper
        self._preempt_one = preempt
        self._preempted: set[Live] = set()
        self._spared: set[Live] = set()
        self._slots = self._blocks = 0

    def begin_step(self) -> None:
        """Forget what was promised for the step before."""
        self._preempted.clear()
        self._slots = self._blocks = 0

    def was_preempted(self, live: Live) -> bool:
        """Tell whether a request has just been preempted, for this step."""
        return live in self._preempted

    def spare(self, live: Live) -> None:
        """Never preempt a request for another: it was let in for its age."""
        self._spared.add(live)

    def forget(self, live: Live) -> None:
        """A request has ended."""
        self._spared.discard(live)

    def needed(self, live: Live) -> int:
        """Return how many free blocks a waiting request needs to begin."""
        node, depth = self._machine.find(live)
        return self._machine.cache.num_needed(node, depth, live.target_tokens)

    def has_room_for(self, live: Live) -> bool:
        """Tell whether a waiting request could begin now."""
        if self._machine.num_free_slots <= self._slots:
            return False
        return self._machine.cache.num_free >= self._blocks + self.needed(live)

    def is_spare_for(self, live: Live) -> bool:
        """Tell whether a prompt can be computed ahead of need without crowding out anything."""
        spec = self._machine.spec
        blocks = -(-live.target_tokens // spec.block_tokens)
        return self._machine.cache.num_free - blocks >= int(_SPARE_SHARE * spec.num_blocks)

    def make_for(self, live: Live, now_s: float) -> bool:
        """Make room for a waiting latency-sensitive request; return whether there is room now.

        Throughput work is preempted, but not in vain.
        """
        machine = self._machine
        slots, blocks = self._slots + 1, self._blocks + self.needed(live)
        if now_s - live.waits_since_s > _PIN_PATIENCE_S:
            self._keeper.reclaim(blocks - machine.cache.num_free)
        if machine.num_free_slots < slots or machine.cache.num_free < blocks:
            victims = self._victims()
            if machine.num_free_slots + len(victims) < slots:
                return False
            if machine.cache.num_free + sum(map(machine.num_freed_by, victims)) < blocks:
                return False
            while victims and (machine.num_free_slots < slots or machine.cache.num_free < blocks):
                self._preempt(victims.pop(), now_s)
        self._slots, self._blocks = slots, blocks
        return True

    def reclaim_for(self, live: Live, now_s: float) -> None:
        """Give back pins for the next waiting request, if nothing runs or it waited for long."""
        machine = self._machine
        is_latency = live.request_class is RequestClass.LATENCY
        patience_s = _PIN_PATIENCE_S if is_latency else _LONG_PIN_PATIENCE_S
        is_patient = now_s - live.waits_since_s <= patience_s
        if machine.running and (is_patient or machine.num_free_slots < 1):
            return
        self._keeper.reclaim(self.needed(live) - machine.cache.num_free)

    def make_for_step(self, order: Sequence[Live], held: list[Live], now_s: float) -> None:
        """See to it that those who take part in a step get their blocks.

        Pins are given back first; then who sits the step out is preempted, throughput work first.

        Args:
            order: Who takes part.
            held: Who does not; who is preempted is taken out.
            now_s: The time.
        """
        machine = self._machine
        most = machine.spec.max_step_tokens
        needed = sum(machine.num_blocks_for(x, min(x.remaining_tokens, most)) for x in order)
        if needed <= machine.cache.num_free:
            return
        self._keeper.reclaim(needed - machine.cache.num_free)
        is_urgent = any(x.request_class is RequestClass.LATENCY for x in order)
        victims = [x for x in held if is_urgent or x.request_class >= RequestClass.THROUGHPUT]
        for live in sorted(reversed(victims), key=self._preempted_last):
            if machine.cache.num_free >= needed:
                return
            self._preempt(live, now_s)
            held.remove(live)

    def _preempted_last(self, live: Live) -> tuple[bool, bool]:
        return (live.request_class < RequestClass.THROUGHPUT, live in self._spared)

    def _victims(self) -> list[Live]:
        """Return who may be preempted for latency-sensitive work, the best last."""
        lesser = [
            x
            for x in self._machine.running
            if x.request_class >= RequestClass.THROUGHPUT and x not in self._spared
        ]
        lesser.sort(key=lambda x: (x.request_class, x.arrival_s))
        return lesser

    def _preempt(self, live: Live, now_s: float) -> None:
        self._preempt_one(live, now_s)
        self._preempted.add(live)
