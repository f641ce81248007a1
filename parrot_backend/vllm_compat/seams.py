"""Between vLLM's core and a policy: what each sees of the other. Pure; imports no vLLM.

``scheduler.SchedulerHooks`` calls a ``Hooks`` and is its ``CoreSeam``; all of it in the one thread
of vLLM's core, between two steps unless something else is said. Hints are opaque here.
Times are seconds on one clock that never runs backwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol


class CoreRequest(Protocol):
    """One request inside vLLM's core.

    Attributes:
        hints: The policy's own; None for a request that came without.
        request_class: The policy's own; a smaller number is served first.
        tpot_s: Target for the time per output token, if there is one.
        held_since_s: The policy's own.
        arrival_s: When it came.
        waits_since_s: The policy's own; at first, when it came.
    """

    hints: Any
    request_class: Any
    tpot_s: float | None
    held_since_s: float | None
    arrival_s: float
    waits_since_s: float

    @property
    def remaining_tokens(self) -> int:
        """Tokens to compute before the next one can be sampled; 1 when it decodes."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens computed so far, or found in the cache."""
        ...

    @property
    def num_preemptions(self) -> int:
        """How often it was put back into the queue."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and output so far."""
        ...

    @property
    def block_hashes(self) -> Sequence[bytes]:
        """Hashes of its full blocks, computed or not."""
        ...

    @property
    def output_ids(self) -> list[int]:
        """Tokens of its text so far, without one that ended it."""
        ...


class BlockPool(Protocol):
    """The KV blocks; blocks themselves are opaque."""

    @property
    def num_blocks(self) -> int:
        """Blocks that can be used."""
        ...

    def cached_block(self, block_hash: Any) -> Any:
        """Return a block that can be found under a hash, or None."""
        ...

    def hold(self, blocks: Sequence[Any]) -> None:
        """Add one reference to each; a block that is referenced is not evicted."""
        ...

    def let_go(self, blocks: Sequence[Any]) -> None:
        """Take away one reference of each; of those nobody references now, the first go first."""
        ...

    def num_free(self) -> int:
        """Return how many blocks nobody references."""
        ...

    def ref_count(self, block: Any) -> int:
        """Return how many references a block has."""
        ...


class CoreSeam(Protocol):
    """vLLM's scheduler, as a policy sees it."""

    @property
    def block_tokens(self) -> int:
        """Tokens of one KV block."""
        ...

    @property
    def max_step_tokens(self) -> int:
        """Most tokens that one step computes."""
        ...

    @property
    def pool(self) -> BlockPool:
        """The KV blocks."""
        ...

    @property
    def watermark_blocks(self) -> int:
        """Free blocks that vLLM leaves when it lets a request begin."""
        ...

    @property
    def can_keep_prefixes(self) -> bool:
        """Whether prefixes can be followed and kept: they are cached, with full attention only."""
        ...

    def running_requests(self) -> list[Any]:
        """Return the requests that run, in vLLM's order."""
        ...

    def num_free_slots(self) -> int:
        """Return how many more requests may run."""
        ...

    def first_unhinted(self) -> Any:
        """Return the next waiting request without hints, or None."""
        ...

    def nobody_waits(self) -> bool:
        """Tell whether no request waits that could begin."""
        ...

    def preempt(self, request: Any) -> bool:
        """Put a running request back into the queue; False if that cannot be now."""
        ...

    @property
    def can_splice(self) -> bool:
        """Whether outputs can be put into the prompts of other requests."""
        ...

    def go_on(self, request: Any, token_ids: list[int], position: int) -> None:
        """Put tokens into the prompt of a request that was kept out of the queue, and queue it."""
        ...

    def sync_priority(self, request: Any) -> None:
        """Note that a request's class has changed."""
        ...

    def watch_blocks(self) -> Iterator[bytes]:
        """Begin to tell of blocks (``Hooks.stored`` and so on); yield what is cached already."""
        ...


class StepChoice(Protocol):
    """What a policy decided for one step.

    Attributes:
        order: Running requests that take part, in the order in which they get tokens.
        held: Running requests that sit the step out; they keep their KV.
        max_tokens: Tokens of the step; None leaves vLLM's own limit.
    """

    @property
    def order(self) -> list[Any]:
        """See the class."""
        ...

    @property
    def held(self) -> list[Any]:
        """See the class."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """See the class."""
        ...


class WaitingQueue(Protocol):
    """A policy's queue of requests with hints."""

    def first(self) -> Any:
        """Return the next one."""
        ...

    def pop(self) -> Any:
        """Take out the next one."""
        ...

    def remove(self, item: Any) -> bool:
        """Take out any one; False if it is not there."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Hooks(Protocol):
    """A policy: what vLLM's scheduler asks it and tells it."""

    @property
    def waiting(self) -> WaitingQueue:
        """The requests with hints that wait."""
        ...

    @property
    def is_idle(self) -> bool:
        """Nothing with hints is around: before and after a step there is nothing to do."""
        ...

    def admit(self, request: Any, extra_args: dict[str, Any] | None, now_s: float) -> None:
        """A request has come: give it its hints and class."""
        ...

    def holds_back(self, request: Any) -> bool:
        """Tell whether a new request must stay out of the queue until ``CoreSeam.go_on``."""
        ...

    def arrived(self, request: Any) -> None:
        """A request that is held back is known to vLLM now."""
        ...

    def enqueue(self, request: Any, now_s: float) -> None:
        """A request with hints waits, for the first time or again."""
        ...

    def precedes(self, hinted: Any, unhinted: Any) -> bool:
        """Tell which of two waiting requests goes first."""
        ...

    def may_begin(self, request: Any) -> bool:
        """Tell whether the next waiting request may begin in this step. Within a step."""
        ...

    def goes_on(self) -> bool:
        """Tell whether the next step needs no plan: then it is not told of, but for its end."""
        ...

    def before_step(self, now_s: float) -> StepChoice:
        """Choose who takes part in the next step."""
        ...

    def step_made(self, computed: list[tuple[Any, int]], begun: list[Any], now_s: float) -> None:
        """A step is on its way.

        Args:
            computed: Who computes how many tokens; ``context_tokens`` includes them already.
            begun: Who began to run with this step.
            now_s: When it was begun.
        """
        ...

    def step_done(self, now_s: float, *, is_known: bool, is_last: bool) -> None:
        """The results of a step are in.

        Args:
            now_s: The time.
            is_known: ``step_made`` told of this step.
            is_last: Nothing is left to do.
        """
        ...

    def ended(self, request: Any, *, is_complete: bool) -> None:
        """A request has ended, well or not, and is about to give back its blocks."""
        ...

    def stored(self, block_hashes: list[bytes], now_s: float) -> None:
        """Blocks can be found under these hashes."""
        ...

    def removed(self, block_hashes: list[bytes], now_s: float) -> None:
        """Blocks cannot be found any more."""
        ...

    def cleared(self, now_s: float) -> None:
        """No block can be found any more."""
        ...

    def flush(self, now_s: float) -> None:
        """Tell what there is to tell, since no step may follow."""
        ...

    def release_pins(self) -> None:
        """Give back every block that is held beyond its requests."""
        ...

    def call(self, name: str, arguments: list[Any], now_s: float) -> Any:
        """Answer a call from the client's side."""
        ...
