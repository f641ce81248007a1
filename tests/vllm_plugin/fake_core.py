"""A small model of vLLM's scheduler as ``vllm_compat.scheduler.SchedulerHooks`` drives it.

One step after the other: no overlap, no drafts, one kind of KV cache, first come first served.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, cast

from parrot_backend.core.pacing import StepPlan
from parrot_backend.core.step_time import StepTimeModel, StepWork
from parrot_backend.vllm_plugin.options import PluginOptions
from parrot_backend.vllm_plugin.policy import ApplicationPolicy
from parrot_backend.vllm_plugin.prefixes import Hash
from tests.vllm_plugin.fake_pool import Block, FakePool

BLOCK = 4

#: A step takes 10 ms, a decode 1 ms and a prompt token 0.2 ms, whatever the context.
STEP_TIME = StepTimeModel(0.010, 2e-4, 1e-3, 0.0, 0.0, num_samples=100, error=0.0)

#: A step that computes nothing.
EMPTY_STEP_S = 0.001

#: More steps in a row that compute nothing than the policy may cause.
MAX_EMPTY_STEPS = 3


def text(number: int, num_tokens: int) -> tuple[int, ...]:
    """Return tokens; those of different numbers differ in every block."""
    return tuple(number * 1000 + place for place in range(num_tokens))


class ChainPool(FakePool):
    """Finds blocks by hashes that are computed elsewhere."""

    def cache_chain(self, hashes: Sequence[bytes], blocks: Sequence[Block], start: int) -> None:
        for block, block_hash in zip(blocks[start:], hashes[start:], strict=True):
            block.hash = block_hash
            self._cached.setdefault(block_hash, {})[block.number] = block
            self._stored(block_hash)


@dataclass(eq=False, repr=False)
class FakeRequest:
    """A request, with what the policy notes on it."""

    prompt: tuple[int, ...]
    max_tokens: int
    arrival_s: float
    hints: Any = None
    request_class: Any = 0
    tpot_s: float | None = None
    held_since_s: float | None = None
    context_tokens: int = 0
    output: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    num_cached: int = 0
    block_hashes: list[bytes] = field(default_factory=list)
    begun_s: float | None = None
    ended_s: float | None = None
    is_complete: bool = False
    num_preemptions: int = 0
    cached_tokens: int = 0
    waits_since_s: float = 0.0
    #: Its last token is one that ends the text, and does not belong to it.
    stops: bool = False

    def __post_init__(self) -> None:
        #: As it came; the prompt of one that goes on after another is longer.
        self.first_prompt = self.prompt
        self.waits_since_s = self.arrival_s
        self.hash_blocks()

    def __repr__(self) -> str:
        return f"<{self.arrival_s:.3f}: {self.prompt[:1]} {self.num_tokens} {self.hints}>"

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.prompt, *self.output)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.output)

    @property
    def output_ids(self) -> list[int]:
        return self.output[:-1] if self.stops and self.is_complete else list(self.output)

    @property
    def remaining_tokens(self) -> int:
        return self.num_tokens - self.context_tokens

    def append(self, token: int) -> None:
        self.output.append(token)
        self.hash_blocks()

    def hash_blocks(self) -> None:
        tokens = self.tokens
        for end in range((len(self.block_hashes) + 1) * BLOCK, len(tokens) + 1, BLOCK):
            parent = self.block_hashes[-1] if self.block_hashes else b""
            content = repr(tokens[end - BLOCK : end]).encode()
            self.block_hashes.append(hashlib.blake2b(parent + content, digest_size=8).digest())


@dataclass
class Step:
    """What one step computed, and how long it took."""

    computed: dict[FakeRequest, int]
    begun: list[FakeRequest]
    held: list[FakeRequest]
    preempted: list[FakeRequest]
    admitted: list[FakeRequest]
    work: StepWork
    elapsed_s: float = 0.0


class FakeCore:
    """vLLM's scheduler with a policy, and the engine around it with its clock."""

    def __init__(
        self,
        options: PluginOptions | None = None,
        *,
        num_blocks: int = 200,
        max_step_tokens: int = 64,
        slots: int = 8,
        is_trained: bool = False,
    ) -> None:
        self.now_s = 1000.0
        self.block_tokens = BLOCK
        self.max_step_tokens = max_step_tokens
        self.slots = self._active_slots = slots
        self.can_keep_prefixes = self.can_splice = True
        self.can_preempt = True
        #: Steps overlap: when a request ends, its last token counts as computed, and is not.
        self.overlaps = False
        #: Who begins again after a preemption is told as one who begins, as vLLM's newer runner has
        #: it.
        self.tells_resumed = False
        self.num_watches = 0
        self.events: list[tuple[str, bytes]] = []
        self.pool = ChainPool(num_blocks, self._stored, self._removed)
        self.stock: deque[FakeRequest] = deque()
        self.running: list[FakeRequest] = []
        self.unfinished: dict[FakeRequest, None] = {}
        self.staged: dict[FakeRequest, None] = {}
        self.steps: list[Step] = []
        self.policy = ApplicationPolicy(self, replace(options or PluginOptions(), splice=True))
        if is_trained:
            self._train()

    # --- the engine around it ----------------------------------------------------------------

    def add(
        self,
        prompt: Sequence[int],
        hints: object = None,
        *,
        max_tokens: int = 4,
        age_s: float = 0.0,
        stops: bool = False,
    ) -> FakeRequest:
        """Take in a request."""
        request = FakeRequest(tuple(prompt), max_tokens, self.now_s - age_s, stops=stops)
        extra_args = None if hints is None else {"parrot": hints}
        self.policy.admit(request, extra_args, self.now_s)
        self.unfinished[request] = None
        if self.policy.holds_back(request):
            self.staged[request] = None
            self.policy.arrived(request)
        else:
            self._enqueue(request)
        return request

    def abort(self, request: FakeRequest) -> None:
        if request not in self.unfinished:
            return
        if request in self.running:
            self.running.remove(request)
        elif request in self.staged:
            del self.staged[request]
        elif not self.policy.waiting.remove(request):
            self.stock.remove(request)
        self._finish(request, is_complete=False)

    def call(self, name: str, *arguments: Any) -> Any:
        return self.policy.call(name, list(arguments), self.now_s)

    def apply(self, *orders: list[Any]) -> None:
        self.call("apply", list(orders))

    def ask(self, number: int) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = self.call("report", number)
        return future

    def reset_prefix_cache(self) -> bool:
        self.policy.release_pins()
        was_reset = self.pool.clear()
        if was_reset and self.num_watches:
            self.events.append(("cleared", b""))
        return was_reset

    def step(self) -> Step:
        """Make a step, let it take its time, and take in its results."""
        is_known = not (self.policy.is_idle or self.policy.goes_on())
        step = self._schedule_hooked() if is_known else self._schedule(self.max_step_tokens)
        step.elapsed_s = STEP_TIME.predict_s(step.work) if step.computed else EMPTY_STEP_S
        self.now_s += step.elapsed_s
        self._update(step)
        if is_known or not self.policy.is_idle:
            is_last = not self._has_work
            self.policy.step_done(self.now_s, is_known=is_known, is_last=is_last)
        self.steps.append(step)
        return step

    def run(self, num_steps: int) -> list[Step]:
        return [self.step() for _ in range(num_steps)]

    def drain(self, max_steps: int = 2000) -> list[Step]:
        """Make steps until nobody runs or waits in the queue; fail if that takes too long."""
        num_empty, made = 0, list[Step]()
        while self._has_work:
            made.append(self.step())
            num_empty = 0 if made[-1].computed else num_empty + 1
            assert num_empty <= MAX_EMPTY_STEPS, "nothing happens, and something is left to do"
            assert len(made) < max_steps, "too many steps"
        return made

    def check(self) -> None:
        """Check that blocks are referenced by those who run and by pins, and by nobody else."""
        users = Counter(block.number for r in self.unfinished for block in r.blocks)
        beyond = [block.references - users[block.number] for block in self.pool.blocks]
        assert min(beyond) >= 0
        assert sum(extra > 0 for extra in beyond) == self.policy.keeper.num_pinned_blocks
        waiting = len(self.policy.waiting) + len(self.stock)
        assert len(self.unfinished) == waiting + len(self.running) + len(self.staged)
        assert len(self.running) <= self.slots

    @property
    def _has_work(self) -> bool:
        # Like vLLM's count, which goes by the queue: who is kept out of it does not count.
        return len(self.unfinished) > len(self.staged)

    def num_cached_leading(self, hashes: Sequence[Hash]) -> int:
        """Return how many leading blocks can be found."""
        for number, block_hash in enumerate(hashes):
            if self.pool.cached_block(block_hash) is None:
                return number
        return len(hashes)

    def _train(self) -> None:
        """Let the policy know how long steps take."""
        for number in range(300):
            work = StepWork.prefill(1 + number * 7 % 60, number % 5 * 20)
            for other in range(number % 6):
                work += StepWork.decode(20 + other * 30)
            self.policy.fitter.observe(work, STEP_TIME.predict_s(work))
        assert self.policy.fitter.model is not None

    # --- what the policy calls ---------------------------------------------------------------

    def running_requests(self) -> list[FakeRequest]:
        return list(self.running)

    def num_free_slots(self) -> int:
        return self._active_slots - len(self.running)

    @property
    def watermark_blocks(self) -> int:
        return 0

    def first_unhinted(self) -> FakeRequest | None:
        return self.stock[0] if self.stock else None

    def nobody_waits(self) -> bool:
        return not self.stock and not self.policy.waiting

    def preempt(self, request: FakeRequest) -> bool:
        if not self.can_preempt:
            return False
        self.running.remove(request)
        self._preempt(request)
        return True

    def go_on(self, request: FakeRequest, token_ids: list[int], position: int) -> None:
        assert request.begun_s is None, "only before anything was computed"
        del self.staged[request]
        prompt = request.prompt
        request.prompt = (*prompt[:position], *token_ids, *prompt[position:])
        request.block_hashes.clear()
        request.hash_blocks()
        self._enqueue(request)

    def sync_priority(self, request: FakeRequest) -> None:
        """Nothing to do: this model is first come, first served."""

    def watch_blocks(self) -> Iterator[bytes]:
        self.num_watches += 1
        self.events.clear()
        for block in self.pool.blocks:
            if isinstance(block.hash, bytes):
                yield block.hash

    # --- a step ------------------------------------------------------------------------------

    def _schedule_hooked(self) -> Step:
        begin_s = self.now_s
        num_before = {r: r.num_preemptions for r in self.unfinished}
        choice = cast("StepPlan[FakeRequest]", self.policy.before_step(begin_s))
        held = list(choice.held)
        self.running = list(choice.order)
        most = self.max_step_tokens
        if choice.max_tokens is not None:
            most = min(most, choice.max_tokens)
        self._active_slots = self.slots - len(held)
        step = self._schedule(most)
        self._active_slots = self.slots
        self.running.extend(held)
        step.held = held
        step.preempted = [r for r, number in num_before.items() if r.num_preemptions > number]
        self.policy.step_made([*step.computed.items()], [*step.begun], begin_s)
        return step

    def _schedule(self, max_tokens: int) -> Step:
        step = Step({}, [], [], [], [], StepWork())
        budget = self._schedule_running(step, max_tokens)
        if not step.preempted:
            self._schedule_waiting(step, budget)
        for request, tokens in step.computed.items():
            step.work += (
                StepWork.decode(request.context_tokens)
                if tokens == 1
                else StepWork.prefill(tokens, request.context_tokens)
            )
            request.context_tokens += tokens
        return step

    def _schedule_running(self, step: Step, budget: int) -> int:
        """Give tokens to those who run, in order; return what is left."""
        place = 0
        while place < len(self.running) and budget > 0:
            request = self.running[place]
            tokens = min(request.remaining_tokens, budget)
            while not self._allocate(request, tokens):
                victim = self.running.pop()
                self._preempt(victim)
                step.preempted.append(victim)
                if victim is request:
                    return budget
            step.computed[request] = tokens
            budget -= tokens
            place += 1
        return budget

    def _schedule_waiting(self, step: Step, budget: int) -> None:
        while budget > 0 and self._may_begin() and len(self.running) < self._active_slots:
            is_hinted = self._is_hinted_next()
            first = self.policy.waiting.first() if is_hinted else self.stock[0]
            request = cast(FakeRequest, first)
            most = (request.num_tokens - 1) // BLOCK
            num_hits = self.num_cached_leading(request.block_hashes[:most])
            found = [self.pool.cached_block(h) for h in request.block_hashes[:num_hits]]
            hits = [block for block in found if block is not None]
            num_free = self.pool.num_free() - sum(not block.references for block in hits)
            if -(-request.num_tokens // BLOCK) - num_hits > num_free:
                return
            self.pool.hold(hits)
            request.blocks, request.num_cached = hits, num_hits
            request.context_tokens = num_hits * BLOCK
            tokens = min(request.remaining_tokens, budget)
            assert self._allocate(request, tokens)
            popped = self.policy.waiting.pop() if is_hinted else self.stock.popleft()
            assert popped is request
            self.running.append(request)
            step.admitted.append(request)
            step.computed[request] = tokens
            budget -= tokens
            if request.begun_s is None:
                request.begun_s, request.cached_tokens = self.now_s, request.context_tokens
                step.begun.append(request)
            elif self.tells_resumed:
                step.begun.append(request)

    def _update(self, step: Step) -> None:
        for request in step.computed:
            if request.remaining_tokens or request not in self.unfinished:
                continue
            request.append(7 * len(request.output) + sum(request.prompt) % 1009)
            if len(request.output) >= request.max_tokens:
                self.running.remove(request)
                self._finish(request, is_complete=True)
        events, self.events = self.events, []
        for kind, block_hash in events:
            if kind == "stored":
                self.policy.stored([block_hash], self.now_s)
            elif kind == "removed":
                self.policy.removed([block_hash], self.now_s)
            else:
                self.policy.cleared(self.now_s)

    def _may_begin(self) -> bool:
        if not self.policy.waiting:
            return bool(self.stock)
        if self._is_hinted_next():
            return self.policy.may_begin(self.policy.waiting.first())
        return self.policy.may_begin(self.stock[0])

    def _is_hinted_next(self) -> bool:
        if not (self.policy.waiting and self.stock):
            return bool(self.policy.waiting)
        return self.policy.precedes(self.policy.waiting.first(), self.stock[0])

    def _enqueue(self, request: FakeRequest, *, is_again: bool = False) -> None:
        if request.hints is not None:
            self.policy.enqueue(request, self.now_s)
        elif is_again:
            request.waits_since_s = self.now_s
            self.stock.appendleft(request)
        else:
            self.stock.append(request)

    def _allocate(self, request: FakeRequest, tokens: int) -> bool:
        missing = -(-(request.context_tokens + tokens) // BLOCK) - len(request.blocks)
        if missing > self.pool.num_free():
            return False
        request.blocks += self.pool.allocate(max(missing, 0))
        num_full = (request.context_tokens + tokens) // BLOCK
        self.pool.cache_chain(
            request.block_hashes[:num_full], request.blocks[:num_full], request.num_cached
        )
        request.num_cached = max(request.num_cached, num_full)
        return True

    def _preempt(self, request: FakeRequest) -> None:
        self._free(request)
        request.context_tokens = 0
        request.num_preemptions += 1
        self._enqueue(request, is_again=True)

    def _finish(self, request: FakeRequest, *, is_complete: bool) -> None:
        request.ended_s, request.is_complete = self.now_s, is_complete
        request.context_tokens += is_complete and self.overlaps
        self.policy.ended(request, is_complete=is_complete)
        self._free(request)
        del self.unfinished[request]

    def _free(self, request: FakeRequest) -> None:
        self.pool.let_go(request.blocks[::-1])
        request.blocks, request.num_cached = [], 0

    def _stored(self, block_hash: Hash) -> None:
        if self.num_watches and isinstance(block_hash, bytes):
            self.events.append(("stored", block_hash))

    def _removed(self, block_hash: Hash) -> None:
        if self.num_watches and isinstance(block_hash, bytes):
            self.events.append(("removed", block_hash))
