"""Room for those who need it: throughput work is preempted, pins are given back."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam
from parrot_backend.vllm_plugin.hints import RequestClass
from parrot_backend.vllm_plugin.keeper import PrefixKeeper

#: Share of the blocks that prompts computed ahead of need must leave free.
_SPARE_SHARE = 0.1

#: vLLM keeps some blocks free when it admits a request (its ``watermark``); with this, what is
#: made free is enough for that.
_MARGIN_SHARE = 0.02


class RoomMaker:
    """Makes room between two steps.

    Attributes:
        num_preempted: Requests that were preempted since the start.
    """

    def __init__(self, core: CoreSeam, keeper: PrefixKeeper) -> None:
        self._core = core
        self._keeper = keeper
        self._preempted: set[CoreRequest] = set()
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

    def make_for(self, request: CoreRequest) -> None:
        """Make room for a waiting latency-sensitive request, at the cost of throughput work.

        What cannot be had is left as it is: then the request waits like any other. Pins are not
        given back for it as long as anything runs that will make room: others would have to
        compute again what is pinned.
        """
        self._promised_slots += 1
        self._promised_blocks += self._blocks(request.num_tokens) + self._margin
        victims = self._victims()
        while self._core.num_free_slots() < self._promised_slots and victims:
            self._preempt(victims.pop())
        while self._core.pool.num_free() < self._promised_blocks and victims:
            self._preempt(victims.pop())

    def reclaim_for(self, request: CoreRequest) -> None:
        """Give back pins for a waiting request beside which nothing runs."""
        needed = self._blocks(request.num_tokens) + self._margin
        self._keeper.reclaim(needed - self._core.pool.num_free())

    def make_for_step(self, order: Sequence[CoreRequest], held: list[CoreRequest]) -> None:
        """See to it that those who take part in a step get their blocks.

        Pins are given back first. Then those who sit the step out are preempted, the last first:
        vLLM itself would take the blocks from somebody who takes part.

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
        for request in reversed(held[:]):
            if self._core.pool.num_free() >= needed:
                return
            if self._preempt(request):
                held.remove(request)

    def is_spare_for(self, request: CoreRequest) -> bool:
        """Tell whether a prompt can be computed ahead of need without crowding out anything."""
        spare = int(_SPARE_SHARE * self._core.pool.num_blocks)
        if self._core.num_unhinted_waiting():
            return False
        return self._core.pool.num_free() - self._blocks(request.num_tokens) >= spare

    @property
    def _margin(self) -> int:
        return 1 + int(_MARGIN_SHARE * self._core.pool.num_blocks)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._core.block_tokens)

    def _victims(self) -> list[CoreRequest]:
        """Return who may be preempted for latency-sensitive work, the best last."""
        running = self._core.running_requests()
        lesser = [r for r in running if r.request_class >= RequestClass.THROUGHPUT]
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
