"""A small model of vLLM's block pool, and of the requests that use a pool."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from parrot_backend.vllm_plugin.pins import BlockPoolSeam
from parrot_backend.vllm_plugin.prefixes import Hash

B = TypeVar("B")

#: What each block of a prompt contains.
Prompt = tuple[int, ...]


def prompt_hashes(prompt: Prompt) -> list[Hash]:
    """Return hashes that cover everything up to each block's end."""
    return [bytes(prompt[: end + 1]) for end in range(len(prompt))]


@dataclass(slots=True)
class Block:
    """A block. Like vLLM's, it compares by value, so it cannot be hashed."""

    number: int
    references: int = 0
    hash: Hash | None = None


class RequestPool(BlockPoolSeam[B], Protocol[B]):
    """What requests need of a pool, besides what pins need."""

    def allocate(self, num_blocks: int) -> list[B]:
        """Evict so many blocks, the least recently freed first, and return them referenced."""
        ...

    def cache(self, prompt: Prompt, blocks: Sequence[B], start: int) -> None:
        """Make the blocks of a prompt findable, from a position on."""
        ...


class FakePool:
    """Blocks with reference counts, found by hash, and evicted as vLLM does.

    Free blocks form a queue. A cached block that becomes free goes to its end, any other to its
    front. Equal blocks are not merged: several may have one hash, and the oldest is found.
    """

    def __init__(
        self,
        num_blocks: int,
        stored: Callable[[Hash], None] = lambda _: None,
        removed: Callable[[Hash], None] = lambda _: None,
    ) -> None:
        self.blocks = [Block(number) for number in range(num_blocks)]
        self._stored = stored
        self._removed = removed
        self._free = OrderedDict((block.number, block) for block in self.blocks)
        self._cached: dict[Hash, dict[int, Block]] = {}

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def cached_block(self, block_hash: Hash) -> Block | None:
        return next(iter(self._cached.get(block_hash, {}).values()), None)

    def hold(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            if not block.references:
                del self._free[block.number]
            block.references += 1

    def let_go(self, blocks: Sequence[Block]) -> None:
        evicted_first: list[Block] = []
        for block in blocks:
            assert block.references > 0, "released twice"
            block.references -= 1
            if block.references:
                continue
            if block.hash is None:
                evicted_first.append(block)
            else:
                self._free[block.number] = block
        for block in reversed(evicted_first):
            self._free[block.number] = block
            self._free.move_to_end(block.number, last=False)

    def num_free(self) -> int:
        return len(self._free)

    def ref_count(self, block: Block) -> int:
        return block.references

    def allocate(self, num_blocks: int) -> list[Block]:
        assert num_blocks <= len(self._free)
        blocks = [self._free.popitem(last=False)[1] for _ in range(num_blocks)]
        for block in blocks:
            if block.hash is not None:
                same = self._cached[block.hash]
                del same[block.number]
                if not same:
                    del self._cached[block.hash]
                self._removed(block.hash)
                block.hash = None
            assert not block.references
            block.references = 1
        return blocks

    def cache(self, prompt: Prompt, blocks: Sequence[Block], start: int) -> None:
        for block, block_hash in list(zip(blocks, prompt_hashes(prompt), strict=False))[start:]:
            assert block.hash is None
            block.hash = block_hash
            self._cached.setdefault(block_hash, {})[block.number] = block
            self._stored(block_hash)

    def clear(self) -> bool:
        """Make every block unfindable, unless one is in use."""
        if len(self._free) < len(self.blocks):
            return False
        for block in self.blocks:
            block.hash = None
        self._cached.clear()
        return True


@dataclass(slots=True, eq=False)
class Running(Generic[B]):
    """A request: the blocks it holds, the first ``num_cached`` of them findable."""

    prompt: Prompt
    blocks: list[B] = field(default_factory=list)
    num_cached: int = 0


class Requests(Generic[B]):
    """Requests that read the cache, fill blocks step by step, and free them tail first."""

    def __init__(self, pool: RequestPool[B], hashes_of: Callable[[Prompt], list[Hash]]) -> None:
        self._pool = pool
        self._hashes_of = hashes_of
        self.running: list[Running[B]] = []

    def start(self, prompt: Prompt, *, reads_cache: bool) -> None:
        """Begin a request, with the leading blocks that the cache holds unless it may not."""
        request = Running[B](prompt)
        for block_hash in self._hashes_of(prompt) if reads_cache else ():
            block = self._pool.cached_block(block_hash)
            if block is None:
                break
            request.blocks.append(block)
        self._pool.hold(request.blocks)
        request.num_cached = len(request.blocks)
        self.running.append(request)

    def step(self, request: Running[B], num_blocks: int, *, extra: int = 0) -> None:
        """Fill some more blocks of a request, as far as there are free ones.

        Args:
            request: One that runs.
            num_blocks: How many blocks become full, and findable.
            extra: Blocks that are taken but not filled, for the last, partial one.
        """
        num_blocks = min(num_blocks, len(request.prompt) - request.num_cached)
        missing = request.num_cached + num_blocks + extra - len(request.blocks)
        if missing > self._pool.num_free():
            return
        request.blocks += self._pool.allocate(max(missing, 0))
        self._pool.cache(
            request.prompt, request.blocks[: request.num_cached + num_blocks], request.num_cached
        )
        request.num_cached += num_blocks

    def finish(self, request: Running[B]) -> None:
        """End a request."""
        self.running.remove(request)
        self._pool.let_go(request.blocks[::-1])
