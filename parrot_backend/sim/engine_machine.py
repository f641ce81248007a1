"""What both rule sets do with a simulated engine: begin, compute, preempt, end."""

from __future__ import annotations

from parrot_backend.core.step_time import StepWork
from parrot_backend.sim.engine_live import DecodeBatch, Live
from parrot_backend.sim.kv_cache import KvCache
from parrot_backend.sim.kv_names import NameBook
from parrot_backend.sim.kv_node import KvNode
from parrot_backend.sim.spec import EngineSpec


class Machine:
    """Memory and batch of one engine.

    Attributes:
        cache: KV memory.
        batch: Who decodes in the next step.
        running: Who has memory, in order of admission; those that wait have none.
        chunks: Who computes how many tokens of a prompt in the next step.
        num_preempted: Since the start.
    """

    def __init__(self, spec: EngineSpec, names: NameBook | None = None) -> None:
        self.spec = spec
        self.cache = KvCache(spec.num_blocks, spec.block_tokens, names)
        self.batch = DecodeBatch(spec.block_tokens, repeated_read=spec.repeated_read)
        self.running: dict[Live, None] = {}
        self.chunks: list[tuple[Live, int]] = []
        self.num_preempted = 0
        self._num_taken = 0
        self._pairs = 0
        self._prefill_tokens = 0
        self._single_tokens = 0
        self._single_context = 0

    @property
    def num_free_slots(self) -> int:
        """How many more requests may run."""
        return self.spec.max_requests - len(self.running)

    # --- admission ----------------------------------------------------------------------------

    def find(self, live: Live) -> tuple[KvNode, int]:
        """Return what is cached of a waiting request; its last token is always computed."""
        block_tokens = self.spec.block_tokens
        most = (live.target_tokens - 1) // block_tokens if self.spec.caches_prefixes else 0
        return self.cache.find(live.request.tenant, live.chain, most)

    def has_room(self, live: Live, node: KvNode, depth: int) -> bool:
        """Tell whether all of a prompt fits into free blocks, beside what is found of it."""
        needed = self.cache.num_needed(node, depth, live.target_tokens)
        return needed <= self.cache.num_free

    def begin(self, live: Live, node: KvNode, depth: int, now_s: float) -> None:
        """Let a waiting request run, from where its prompt is not cached any more."""
        live.hold = self.cache.hold(node, depth)
        live.computed = live.hold.num_blocks * self.spec.block_tokens
        if live.started_s < 0:
            live.started_s = now_s
            live.cached_tokens = live.computed
        self.running[live] = None

    # --- steps --------------------------------------------------------------------------------

    def num_blocks_for(self, live: Live, tokens: int) -> int:
        """Return how many new blocks a chunk takes."""
        block_tokens, context = self.spec.block_tokens, live.context_tokens
        return -(-(context + tokens) // block_tokens) - -(-context // block_tokens)

    def num_freed_by(self, live: Live) -> int:
        """Return how many blocks become free if a request that runs is preempted."""
        hold = live.hold
        assert hold is not None
        freed = -(-live.context_tokens // self.spec.block_tokens) - hold.num_blocks + hold.copies
        node, depth = hold.node, hold.depth
        while node.parent is not None:
            if node.full + sum((node.partial or {}).values()) > 1:
                break
            freed += depth
            node = node.parent
            depth = node.length
        return freed

    def compute(self, live: Live, tokens: int) -> None:
        """Let the next step compute so many more tokens of a prompt; there must be blocks."""
        assert live.hold is not None
        self.cache.take(self.num_blocks_for(live, tokens))
        context = live.computed
        if tokens == 1:  # it reads and computes as much as one that decodes
            self._single_tokens += 1
            self._single_context += context
        else:
            self._prefill_tokens += tokens
            self._pairs += tokens * context + tokens * tokens // 2
        live.computed += tokens
        live.computed_tokens += tokens
        self.chunks.append((live, tokens))
        if self.spec.caches_prefixes:
            self.cache.store(live.hold, live.chain, live.computed)

    def work(self) -> StepWork:
        """Return what the next step computes."""
        batch = self.batch
        return StepWork(
            self._prefill_tokens,
            batch.num_requests + self._single_tokens,
            batch.read_tokens + self._single_context,
            self._pairs,
        )

    @property
    def num_free(self) -> int:
        """Blocks that are free, those counted that decodes of the next step take already."""
        return self.cache.num_free + self._num_taken

    def take_for_decodes(self) -> None:
        """Take the blocks that decodes need in the next step, before others take them."""
        self._num_taken = self.batch.next_blocks
        self.cache.take(self._num_taken)

    def advance(self, num_steps: int) -> list[tuple[Live, int]]:
        """Make the planned steps; return the chunks that they computed.

        Blocks for decodes are taken only now where nobody else could want them: nobody knows before
        how many of the planned steps are made.
        """
        if self.batch.num_requests:
            if num_steps > 1 or not self._num_taken:
                self.cache.take(self.batch.num_blocks_for(num_steps) - self._num_taken)
            self.batch.advance(num_steps)
        self._num_taken = 0
        chunks, self.chunks = self.chunks, []
        self._prefill_tokens = self._pairs = self._single_tokens = self._single_context = 0
        return chunks

    # --- ends ---------------------------------------------------------------------------------

    def preempt(self, live: Live, now_s: float) -> None:
        """Take all memory from a request; it is to be computed again."""
        if live.joined >= 0:
            self.batch.remove(live)
        self._release(live)
        if live.generated:
            live.target_tokens = live.tail[1]
            live.chain = (*live.request.chain, live.tail)
        live.waits_since_s = now_s
        live.held_since_s = None
        self.num_preempted += 1

    def end(self, live: Live) -> KvNode | None:
        """Take out a request that runs; return where its prompt ends in the cache, if it does."""
        if live.joined >= 0:
            self.batch.remove(live)
        hold = live.hold
        self._release(live)
        is_whole = hold is not None and hold.depth == hold.node.length
        return hold.node if is_whole and hold is not None else None

    def _release(self, live: Live) -> None:
        assert live.hold is not None
        has_tail = live.generated and self.spec.caches_prefixes
        self.cache.release(live.hold, live.computed, live.tail if has_tail else None)
        live.hold = None
        live.computed = 0
        del self.running[live]
