"""A request inside a simulated engine, and the batch of those that decode."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import NamedTuple

from parrot_backend.core.criteria import Objective
from parrot_backend.core.request_class import RequestClass
from parrot_backend.sim.engine_seam import SimRequest
from parrot_backend.sim.kv_node import Boundary, Hold

#: The numbers of the classes agree with those of objectives; fills have one more.
_CLASSES = tuple(RequestClass)


class Rank(NamedTuple):
    """What the order of waiting requests goes by (``core.waiting_lane.Ranked``)."""

    request_class: RequestClass
    deadline_s: float | None
    tenant: str
    group: str | None
    path_length: int
    prefix_group: str | None


class Live:
    """One attempt, from its arrival to its end.

    While it decodes in a batch, ``computed`` and ``generated`` stand for when it joined.

    Attributes:
        request: What was asked for.
        objective: What is asked for now.
        request_class: What follows from that.
        path_length: Longest path behind it, in calls.
        chain: Boundaries of what is to be computed before it decodes.
        target_tokens: How long that is; after a preemption it includes what was generated.
        arrival_s: When it came.
        order: Position among all that ever came.
        waits_since_s: Since when it waits.
        hold: What it holds of the cache; None while it waits.
        computed: Tokens whose KV it has.
        generated: Tokens of its output so far.
        joined: Step of the batch in which it joined; -1 if it is not in it.
        held_since_s: Since when pacing keeps it out of steps.
        is_aborted: It is to go when the step is done.
    """

    __slots__ = (
        "arrival_s",
        "batch",
        "cached_tokens",
        "chain",
        "computed",
        "computed_tokens",
        "first_token_s",
        "generated",
        "held_since_s",
        "hold",
        "is_aborted",
        "joined",
        "objective",
        "order",
        "path_length",
        "request",
        "request_class",
        "started_s",
        "target_tokens",
        "waits_since_s",
    )

    def __init__(self, request: SimRequest, order: int, now_s: float, batch: DecodeBatch) -> None:
        self.request = request
        self.batch = batch
        self.set_objective(request.objective, request.remaining)
        self.chain: tuple[Boundary, ...] = request.chain
        self.target_tokens = request.prompt_tokens
        self.arrival_s = self.waits_since_s = now_s
        self.order = order
        self.hold: Hold | None = None
        self.computed = 0
        self.generated = 0
        self.joined = -1
        self.cached_tokens = -1
        self.computed_tokens = 0
        self.started_s = -1.0
        self.first_token_s = -1.0
        self.held_since_s: float | None = None
        self.is_aborted = False

    def set_objective(self, objective: Objective, remaining: int) -> None:
        """Take in what is asked for now."""
        self.objective: Objective = objective
        self.path_length: int = remaining
        is_fill = self.request.is_fill
        self.request_class = RequestClass.FILL if is_fill else _CLASSES[objective.objective_class]

    @property
    def tpot_s(self) -> float | None:
        """Target time per output token."""
        return self.objective.tpot_s

    def rank(self) -> Rank:
        """Return what its place among waiting requests goes by, as it is now."""
        chain, objective = self.request.chain, self.objective
        return Rank(
            self.request_class,
            objective.deadline_s,
            self.request.tenant,
            objective.group,
            self.path_length,
            chain[0][0].hex() if len(chain) > 1 else None,
        )

    @property
    def context_tokens(self) -> int:
        """Tokens whose KV it has now."""
        if self.joined < 0:
            return self.computed
        return self.computed + self.batch.step - self.joined

    @property
    def is_decoding(self) -> bool:
        """Whether its next step gives it its next token by computing one."""
        return self.hold is not None and 0 < self.target_tokens <= self.computed

    @property
    def remaining_tokens(self) -> int:
        """Tokens to compute before it has its next token of output: 1 if it decodes."""
        return max(1, self.target_tokens - self.computed)

    @property
    def tail(self) -> Boundary:
        """The name of what it generates, for the cache, and where that ends."""
        return (self.tail_name, self.request.prompt_tokens + self.generated)

    @property
    def tail_name(self) -> Hashable:
        """The name of what it generates, for the cache."""
        return self.request.attempt


class DecodeBatch:
    """The requests that decode together: each step gives one token to each.

    Sums are kept and not requests looked at, so a change costs a little and a run of steps nothing.

    Args:
        block_tokens: Tokens of one KV block.
        repeated_read: What a further reader of a common prefix pays, as a share of the first one.

    Attributes:
        num_requests: How many decode.
        step: Steps made since the start.
    """

    def __init__(self, block_tokens: int, *, repeated_read: float) -> None:
        self.num_requests = 0
        self.step = 0
        self._block_tokens = block_tokens
        self._saved_share = 1.0 - repeated_read
        self._context_tokens = 0
        self._saved_tokens = 0
        #: How many need a new block in steps with this remainder.
        self._phases = [0] * block_tokens
        self._ends: list[tuple[int, int, Live]] = []

    @property
    def read_tokens(self) -> int:
        """KV tokens that the next step reads; each further one reads one more of each request."""
        return self._context_tokens - int(self._saved_share * self._saved_tokens)

    def add(self, live: Live) -> None:
        """Let a request take part, which has its first token and wants more."""
        live.joined = self.step
        self.num_requests += 1
        self._context_tokens += live.computed
        self._phases[(self.step - live.computed) % self._block_tokens] += 1
        end = self.step + live.request.output_tokens - live.generated
        heappush(self._ends, (end, live.order, live))
        if self._saved_share:
            self._saved_tokens += self._shared(live, 1)

    def remove(self, live: Live) -> None:
        """Take a request out, with the tokens that it got."""
        done = self.step - live.joined
        self._phases[(live.joined - live.computed) % self._block_tokens] -= 1
        live.computed += done
        live.generated += done
        live.joined = -1
        self.num_requests -= 1
        self._context_tokens -= live.computed
        if self._saved_share:
            self._saved_tokens -= self._shared(live, -1)
        self._drop_ended()

    @property
    def next_blocks(self) -> int:
        """How many new blocks the next step takes."""
        return self._phases[self.step % self._block_tokens]

    def num_blocks_for(self, num_steps: int) -> int:
        """Return how many new blocks so many steps take."""
        rounds, rest = divmod(num_steps, self._block_tokens)
        needed = self.num_requests * rounds
        if rest:
            first = self.step % self._block_tokens
            phases = self._phases
            needed += sum(phases[first : first + rest])
            needed += sum(phases[: max(0, first + rest - self._block_tokens)])
        return needed

    def num_steps_within(self, num_blocks: int, max_steps: int) -> int:
        """Return how many steps can be made with so many new blocks, up to a limit."""
        most = self.num_requests * (max_steps // self._block_tokens + 1)
        if most <= num_blocks or self.num_blocks_for(max_steps) <= num_blocks:
            return max_steps
        low, high = 0, max_steps  # the first is possible, the last is not
        while high - low > 1:
            middle = (low + high) // 2
            if self.num_blocks_for(middle) <= num_blocks:
                low = middle
            else:
                high = middle
        return low

    @property
    def steps_to_end(self) -> int:
        """Steps until the first request has its last token; there must be one."""
        return self._ends[0][0] - self.step

    def advance(self, num_steps: int) -> None:
        """Make steps."""
        self.step += num_steps
        self._context_tokens += num_steps * self.num_requests

    def pop_ended(self) -> Live | None:
        """Take out and return the next request that has its last token, or None."""
        if not self._ends or self._ends[0][0] > self.step:
            return None
        live = self._ends[0][2]
        self.remove(live)
        return live

    def _drop_ended(self) -> None:
        """Forget ends of requests that have left, or have joined anew since."""
        ends = self._ends
        while ends:
            end, _, live = ends[0]
            is_here = live.joined >= 0
            if is_here and live.joined + live.request.output_tokens - live.generated == end:
                return
            heappop(ends)

    def _shared(self, live: Live, change: int) -> int:
        """Count a reader of the blocks of a prompt; return the tokens that others read, too."""
        assert live.hold is not None
        saved = 0
        for node in live.hold.node.path():
            node.readers += min(change, 0)
            if node.readers:
                saved += live.hold.depth if node is live.hold.node else node.length
            node.readers += max(change, 0)
        return saved * self._block_tokens
