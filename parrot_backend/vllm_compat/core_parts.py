"""Parts of vLLM's core in our words: a request, the queue, the block pool, block events.

Imports vLLM; used by ``scheduler`` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, EventPublisher
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request, RequestStatus

from parrot_backend.vllm_compat.seams import Hooks, WaitingQueue


class HookedRequest:
    """A ``CoreRequest`` on vLLM's own."""

    __slots__ = (
        "arrival_s",
        "held_since_s",
        "hints",
        "raw",
        "request_class",
        "tpot_s",
        "waits_since_s",
    )

    def __init__(self, raw: Request, arrival_s: float) -> None:
        self.raw = raw
        self.arrival_s = self.waits_since_s = arrival_s
        self.hints: Any = None
        self.request_class: Any = 0
        self.tpot_s: float | None = None
        self.held_since_s: float | None = None

    @property
    def remaining_tokens(self) -> int:
        """Tokens to compute before the next one can be sampled; 1 when it decodes."""
        raw = self.raw
        return int(raw.num_tokens + raw.num_output_placeholders - raw.num_computed_tokens)

    @property
    def context_tokens(self) -> int:
        """Tokens computed so far, or found in the cache."""
        return int(self.raw.num_computed_tokens)

    @property
    def num_preemptions(self) -> int:
        """How often it was put back into the queue."""
        return int(self.raw.num_preemptions)

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and output so far."""
        return int(self.raw.num_tokens)

    @property
    def block_hashes(self) -> Sequence[bytes]:
        """Hashes of its full blocks, computed or not."""
        hashes: Sequence[bytes] = self.raw.block_hashes
        return hashes

    @property
    def output_ids(self) -> list[int]:
        """Tokens of its text so far, without one that ended it."""
        ids = list(self.raw.output_token_ids)
        return ids[:-1] if self.raw.status is RequestStatus.FINISHED_STOPPED else ids

    def splice(self, token_ids: Sequence[int], position: int) -> None:
        """Put tokens into the prompt, before anything of it was computed."""
        raw: Any = self.raw
        before = raw.prompt_token_ids
        raw.prompt_token_ids = [*before[:position], *token_ids, *before[position:]]
        # Others look at this very list.
        raw._all_token_ids[:] = raw.prompt_token_ids
        raw.num_prompt_tokens = len(raw.prompt_token_ids)
        raw.block_hashes.clear()
        raw.update_block_hashes()


class HintQueue(RequestQueue):
    """vLLM's own queue for requests without hints, beside the policy's for the others.

    Args:
        stock: vLLM's own.
        hooks: The policy.
        hooked: Finds the policy's view of a request.
    """

    def __init__(
        self, stock: RequestQueue, hooks: Hooks, hooked: Callable[[Request], HookedRequest]
    ) -> None:
        self.stock = stock
        self._hooks = hooks
        self._hooked = hooked

    @property
    def _hinted(self) -> WaitingQueue:
        return self._hooks.waiting

    def add_request(self, request: Request) -> None:
        """Put in a request."""
        hooked = self._hooked(request)
        if hooked.hints is None:
            self.stock.add_request(request)
        else:
            self._hooks.enqueue(hooked, time.monotonic())

    def pop_request(self) -> Request:
        """Take out the next one."""
        if self._is_hinted_next():
            return self._raw(self._hinted.pop())
        return self.stock.pop_request()

    def peek_request(self) -> Request:
        """Return the next one."""
        if self._is_hinted_next():
            return self._raw(self._hinted.first())
        return self.stock.peek_request()

    def prepend_request(self, request: Request) -> None:
        """Put back a request that was preempted; one with hints goes to its own place."""
        hooked = self._hooked(request)
        if hooked.hints is None:
            hooked.waits_since_s = time.monotonic()
            self.stock.prepend_request(request)
        else:
            self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Put back requests; those with hints go to their own places."""
        given = list(requests)
        unhinted = [r for r in given if self._hooked(r).hints is None]
        for request in given:
            if self._hooked(request).hints is not None:
                self.add_request(request)
        # vLLM's queues give a meaning to the type of what they get: pass on what came.
        self.stock.prepend_requests(requests if len(unhinted) == len(given) else unhinted)

    def remove_request(self, request: Request) -> None:
        """Take out any one."""
        if not self._hinted.remove(self._hooked(request)):
            self.stock.remove_request(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Take out several; those that are not here are passed over."""
        given = set(requests)
        unhinted = {r for r in given if not self._hinted.remove(self._hooked(r))}
        if unhinted:
            self.stock.remove_requests(unhinted)

    def __bool__(self) -> bool:
        # vLLM asks before it admits one more: False closes the door for the rest of the step.
        if not self._hinted:
            return bool(self.stock)
        return self._hooks.may_begin(self._hooked(self.peek_request()))

    def __len__(self) -> int:
        return len(self.stock) + len(self._hinted)

    def __iter__(self) -> Iterator[Request]:
        yield from (hooked.raw for hooked in self._hinted)
        yield from self.stock

    @staticmethod
    def _raw(hooked: HookedRequest) -> Request:
        return hooked.raw

    def _is_hinted_next(self) -> bool:
        if not self._hinted:
            return False
        if not self.stock:
            return True
        unhinted = self._hooked(self.stock.peek_request())
        return self._hooks.precedes(self._hinted.first(), unhinted)


class PoolView:
    """A ``BlockPool`` on vLLM's own, for models with one kind of KV cache."""

    _GROUP = 0

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @property
    def num_blocks(self) -> int:
        """Blocks that can be used: vLLM keeps one for itself."""
        return int(self._pool.num_gpu_blocks) - 1

    def cached_block(self, block_hash: Any) -> Any:
        """Return a block that can be found under a hash, or None."""
        found = self._pool.get_cached_block(block_hash, [self._GROUP])
        return None if found is None else found[0]

    def hold(self, blocks: Sequence[Any]) -> None:
        """Add one reference to each."""
        self._pool.touch(blocks)

    def let_go(self, blocks: Sequence[Any]) -> None:
        """Take away one reference of each."""
        self._pool.free_blocks(blocks)

    def num_free(self) -> int:
        """Return how many blocks nobody references."""
        return int(self._pool.get_num_free_blocks())

    def ref_count(self, block: Any) -> int:
        """Return how many references a block has."""
        return int(block.ref_cnt)


class TeePublisher(EventPublisher):
    """Tells the policy of block events, and whoever else was to hear of them."""

    def __init__(
        self, inner: EventPublisher, hooks: Hooks, for_others: Callable[[Any], Any]
    ) -> None:
        self._inner = inner
        self._hooks = hooks
        self._for_others = for_others

    def publish(self, events: Any) -> None:
        """Pass on a batch of events.

        They come with whole hashes; others get them in the form that vLLM is set to.
        """
        now_s = time.monotonic()
        for event in events.events:
            if isinstance(event, BlockStored):
                self._hooks.stored(_whole(event.block_hashes), now_s)
                if event.parent_block_hash is not None:
                    event.parent_block_hash = self._for_others(event.parent_block_hash)
                event.block_hashes = [self._for_others(h) for h in event.block_hashes]
            elif isinstance(event, BlockRemoved):
                self._hooks.removed(_whole(event.block_hashes), now_s)
                event.block_hashes = [self._for_others(h) for h in event.block_hashes]
            elif isinstance(event, AllBlocksCleared):
                self._hooks.cleared(now_s)
        self._inner.publish(events)

    def shutdown(self) -> None:
        """End the other publisher."""
        self._inner.shutdown()

    def get_publisher_config(self) -> Any:
        """Return the other publisher's."""
        return self._inner.get_publisher_config()


def _whole(block_hashes: Iterable[Any]) -> list[bytes]:
    return [bytes(block_hash) for block_hash in block_hashes]
