"""Room for those who need it: throughput work is preempted, pins are given back."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam
from parrot_backend.vllm_plugin.hints import RequestClass
from parrot_backend.vllm_plugin.keeper import PrefixKeeper

#: Share of the blocks that prompts computed ahead of need must leave free.
_SPARE_SHARE = 0.1

#: A latency-sensitive request that waited longer gets the room that pins take.
_PIN_PATIENCE_S = 0.5

#: The same for others.
_LONG_PIN_PATIENCE_S = 3.0


class RoomMaker:
    """Makes room between two steps.

    Attributes:
        num_preempted: Requests that were preempted since the start.
    """

    def __init__(self, core: CoreSeam, keeper: PrefixKeeper) -> None:
        self._core = core
        self._keeper = keeper
        self._preempted: set[CoreRequest] = set()
        self._spared: set[CoreRequest] = set()
        self._promised_slots = 0
        self._promised_blocks = 0
        self.num_preempted = 0

    def begin_step(self) -> None:
        """Forget what was done for the step before."""
        self._preempted.clear()
        self._promised_slots = self._promised_blocks = 0

    def was_preempted(self, request: CoreRequest) -> bool:
        """Tell whether a request has just been preempted, for this step."""
        return request in self._preempted

    def spare(self, request: CoreRequest) -> None:
        """Never preempt a request: it was let in for its age."""
        self._spared.add(request)

    def forget(self, request: CoreRequest) -> None:
        """A request has ended."""
        self._spared.discard(request)

    def make_for(self, request: CoreRequest, now_s: float, *, may_preempt: bool) -> bool:
        """Make room for a waiting latency-sensitive request; return whether there is room now.

        Throughput work is preempted, but not in vain: if that would not be enough, the request
        waits like any other. Pins are given back for it only when it has waited for a while: what
        runs will make room, and others would have to compute again what is pinned.

        Args:
            request: The request.
            now_s: The time.
            may_preempt: Whether others may be preempted for it.
        """
        pool, victims = self._core.pool, self._victims() if may_preempt else []
        slots = self._promised_slots + 1
        blocks = self._promised_blocks + self._needed(request)
        if now_s - request.waits_since_s > _PIN_PATIENCE_S:
            self._keeper.reclaim(blocks - pool.num_free())
        if self._core.num_free_slots() + len(victims) < slots:
            return False
        if pool.num_free() < blocks:
            gained = sum(map(self._num_freed, victims))
            if pool.num_free() + gained < blocks:
                return False
        self._promised_slots, self._promised_blocks = slots, blocks
        while victims and (self._core.num_free_slots() < slots or pool.num_free() < blocks):
            self._preempt(victims.pop())
        return True

    def has_room_for(self, request: CoreRequest) -> bool:
        """Tell whether a waiting request could begin now."""
        return (
            self._core.num_free_slots() > self._promised_slots
            and self._core.pool.num_free() >= self._promised_blocks + self._needed(request)
        )

    def reclaim_for(self, request: CoreRequest, now_s: float) -> None:
        """Give back pins for the next waiting request, if nothing runs or it has waited for long.

        What runs will make room, and others would have to compute again what is pinned; but pins
        must not keep anybody waiting for good.
        """
        is_latency = request.request_class is RequestClass.LATENCY
        patience_s = _PIN_PATIENCE_S if is_latency else _LONG_PIN_PATIENCE_S
        if self._core.running_requests() and (
            now_s - request.waits_since_s <= patience_s or self._core.num_free_slots() < 1
        ):
            return
        self._keeper.reclaim(self._needed(request) - self._core.pool.num_free())

    def make_for_step(self, order: Sequence[CoreRequest], held: list[CoreRequest]) -> None:
        """See to it that those who take part in a step get their blocks.

        Pins are given back first. Then who sits the step out is preempted: vLLM itself would take
        the blocks from somebody who takes part. Throughput work goes first, what was let in for
        its age next, and other work only for the sake of latency-sensitive requests.

        Args:
            order: Who takes part.
            held: Who does not; who is preempted is taken out.
        """
        if not (held or self._keeper.num_pinned_blocks):
            return
        block, most = self._core.block_tokens, self._core.max_step_tokens
        needed = sum(
            _blocks_for(r.context_tokens, min(r.remaining_tokens, most), block) for r in order
        )
        self._keeper.reclaim(needed - self._core.pool.num_free())
        is_urgent = any(r.request_class is RequestClass.LATENCY for r in order)
        victims = [r for r in held if is_urgent or r.request_class >= RequestClass.THROUGHPUT]
        # The last first; a stable sort keeps that order among equals.
        for request in sorted(reversed(victims), key=self._preempted_last):
            if self._core.pool.num_free() >= needed:
                return
            if self._preempt(request):
                held.remove(request)

    def _preempted_last(self, request: CoreRequest) -> tuple[bool, bool]:
        return (request.request_class < RequestClass.THROUGHPUT, request in self._spared)

    def is_spare_for(self, request: CoreRequest) -> bool:
        """Tell whether a prompt can be computed ahead of need without crowding out anything."""
        spare = int(_SPARE_SHARE * self._core.pool.num_blocks)
        if self._core.first_unhinted() is not None:
            return False
        return self._core.pool.num_free() - self._blocks(request.num_tokens) >= spare

    def _num_referenced(self, request: CoreRequest) -> int:
        """Return how many leading blocks of a prompt are in use: they take no free ones."""
        pool = self._core.pool
        for number, block_hash in enumerate(request.block_hashes):
            block = pool.cached_block(block_hash)
            if block is None or not pool.ref_count(block):
                return number
        return len(request.block_hashes)

    def _needed(self, request: CoreRequest) -> int:
        """Return how many free blocks a request needs to begin; looks closer where that counts."""
        needed = self._blocks(request.num_tokens) + self._core.watermark_blocks
        if self._core.pool.num_free() < self._promised_blocks + needed:
            needed -= self._num_referenced(request)
        return needed

    def _num_freed(self, request: CoreRequest) -> int:
        """Return how many blocks become free when a running request is preempted."""
        pool, num_blocks = self._core.pool, self._blocks(request.context_tokens)
        shared = 0
        for block_hash in request.block_hashes[:num_blocks]:
            block = pool.cached_block(block_hash)
            shared += block is not None and pool.ref_count(block) > 1
        return num_blocks - shared

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._core.block_tokens)

    def _victims(self) -> list[CoreRequest]:
        """Return who may be preempted for latency-sensitive work, the best last."""
        running = self._core.running_requests()
        lesser = [
            r
            for r in running
            if r.request_class >= RequestClass.THROUGHPUT and r not in self._spared
        ]
        # The newest of the lowest class has least to lose.
        lesser.sort(key=lambda r: (r.request_class, r.arrival_s))
        return lesser

    def _preempt(self, request: CoreRequest) -> bool:
        if not self._core.preempt(request):
            return False
        self._preempted.add(request)
        self.num_preempted += 1
        return True


def _blocks_for(context_tokens: int, added_tokens: int, block_tokens: int) -> int:
    """Return how many blocks a request needs beyond those it has."""
    has = -(-context_tokens // block_tokens)
    return -(-(context_tokens + added_tokens) // block_tokens) - has
