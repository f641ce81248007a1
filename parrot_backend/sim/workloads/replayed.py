"""Recorded traffic of single calls at its recorded times: Mooncake and Azure conversations."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Constant, Piece
from parrot_backend.sim.workloads.building import LATENCY, single_call, text
from parrot_backend.sim.workloads.checks import at_least, positive
from parrot_backend.sim.workloads.tables import (
    MOONCAKE_BLOCK_TOKENS,
    TracedRequest,
    azure_conversation,
    mooncake_conversation,
)

#: A block as it is in a prompt: its id, and its tokens, which are fewer at the end of a prompt.
Block = tuple[int, int]

#: Blocks whose session is remembered; more are not, so that endless traces do not fill the memory.
_MAX_REMEMBERED_BLOCKS = 4_000_000


def mooncake_jobs(speed: float = 1.0) -> Iterator[Arrival]:
    """Return the Mooncake conversations, with blocks joined where no prompt parts within them.

    Raises:
        WorkloadError: The speed is not above zero.
    """
    requests, ends = _mooncake()
    return replay(requests, "mooncake", speed=speed, ends=ends)


def azure_jobs(speed: float = 1.0) -> Iterator[Arrival]:
    """Return the Azure conversations; the trace does not tell what prompts share.

    Raises:
        WorkloadError: The speed is not above zero.
    """
    return replay(azure_conversation(), "azure", speed=speed)


def replay(
    requests: Iterable[TracedRequest],
    app: str,
    *,
    speed: float = 1.0,
    block_tokens: int = MOONCAKE_BLOCK_TOKENS,
    ends: Container[Block] | None = None,
    criteria: Criteria = LATENCY,
) -> Iterator[Arrival]:
    """Return the requests of a trace as programs of one call, open loop, one by one.

    A block becomes a text named by its id, which stands for all before it too; what no block covers
    is a text of its own. The user is the request's heuristic session: that of the longest beginning
    that was seen before of its tenant, if it is longer than the first block of the tenant's first
    prompt; else a new one.

    Args:
        requests: In order of time.
        app: Name of the application; texts of different names differ.
        speed: So many times as fast as recorded.
        block_tokens: Tokens of one block.
        ends: Blocks after which a text ends, as :func:`forks` finds them; None for after each.
        criteria: What each user asks for.

    Raises:
        WorkloadError: The speed is not above zero, or the block is empty.
    """
    positive("speed", speed)
    at_least("block_tokens", block_tokens, 1)
    return _replay(requests, app, speed, block_tokens, ends, criteria)


def forks(requests: Iterable[TracedRequest], block_tokens: int) -> frozenset[Block]:
    """Return the blocks that not all prompts go on from in the same way, or that end one.

    Texts that end only there are as good as texts of one block each: what prompts share ends there.
    """
    found = set[Block]()
    followed_by = dict[Block, Block]()
    for request in requests:
        blocks = _blocks(request, block_tokens)
        for block, then in pairwise(blocks):
            if followed_by.setdefault(block, then) != then:
                found.add(block)
        found.update(blocks[-1:])
    return frozenset(found)


@lru_cache(maxsize=1)
def _mooncake() -> tuple[tuple[TracedRequest, ...], frozenset[Block]]:
    requests = tuple(mooncake_conversation())
    return requests, forks(requests, MOONCAKE_BLOCK_TOKENS)


def _replay(
    requests: Iterable[TracedRequest],
    app: str,
    speed: float,
    block_tokens: int,
    ends: Container[Block] | None,
    criteria: Criteria,
) -> Iterator[Arrival]:
    sessions = _Sessions()
    for number, request in enumerate(requests):
        pieces = _pieces(_blocks(request, block_tokens), app, ends)
        own_tokens = request.prompt_tokens - block_tokens * len(request.block_ids)
        pieces += text(f"{app}/own/{number}", own_tokens)
        program = single_call(app, tuple(pieces), request.output_tokens, criteria, request.tenant)
        user = sessions.user_of(request) if request.block_ids else f"request-{number}"
        yield Arrival(request.time_ms / 1000 / speed, program, user)


def _blocks(request: TracedRequest, block_tokens: int) -> list[Block]:
    last = len(request.block_ids) - 1
    last_tokens = min(block_tokens, request.prompt_tokens - last * block_tokens)
    return [
        (block, last_tokens if position == last else block_tokens)
        for position, block in enumerate(request.block_ids)
    ]


def _pieces(blocks: list[Block], app: str, ends: Container[Block] | None) -> list[Piece]:
    pieces = list[Piece]()
    tokens = 0
    for block in blocks:
        tokens += block[1]
        if ends is None or block in ends or block is blocks[-1]:
            pieces.append(Constant(f"{app}/{block[0]}", tokens))
            tokens = 0
    return pieces


class _Sessions:
    """Gives requests of one conversation one name, as far as their blocks tell."""

    def __init__(self) -> None:
        self._of_block = dict[str, dict[int, int]]()  # of each tenant
        self._num_blocks = 0
        self._common = dict[str, int]()
        self._num = 0

    def user_of(self, request: TracedRequest) -> str:
        """Return the session of a request that has blocks, and remember them."""
        block_ids = request.block_ids
        of_block = self._of_block.setdefault(request.tenant, {})
        # In the Mooncake trace every prompt begins with its first block, so that tells nothing.
        common = self._common.setdefault(request.tenant, block_ids[0])
        known = (b for b in reversed(block_ids) if b in of_block and b != common)
        longest = next(known, None)
        if longest is None:
            session, self._num = self._num, self._num + 1
        else:
            session = of_block[longest]
        if self._num_blocks < _MAX_REMEMBERED_BLOCKS:
            num_before = len(of_block)
            for block in block_ids:
                of_block.setdefault(block, session)
            self._num_blocks += len(of_block) - num_before
        return f"session-{session}"
