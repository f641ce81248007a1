"""Which cached blocks must not be evicted, because requests to come will read them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from parrot_backend.vllm_plugin.prefixes import Hash

B = TypeVar("B")

DropReason = Literal["cap", "expired", "reclaimed"]


class BlockPoolSeam(Protocol[B]):
    """What the pins need of the engine's block pool; blocks are told apart by identity."""

    @property
    def num_blocks(self) -> int:
        """How many blocks requests can use."""
        ...

    def cached_block(self, block_hash: Hash) -> B | None:
        """Return a cached block with this hash; the same one as long as it is referenced."""
        ...

    def hold(self, blocks: Sequence[B]) -> None:
        """Add one reference to each block."""
        ...

    def let_go(self, blocks: Sequence[B]) -> None:
        """Take one reference from each block; of those now free, the first is evicted first."""
        ...

    def num_free(self) -> int:
        """Return how many blocks nobody references."""
        ...

    def ref_count(self, block: B) -> int:
        """Return how many references a block has, pins included."""
        ...


@dataclass(frozen=True, slots=True)
class PinOptions:
    """Limits of the pins.

    Attributes:
        max_share: Of all blocks, at most this share is pinned.
        ttl_s: A lease that was not renewed for longer than this ends.
    """

    max_share: float = 0.5
    ttl_s: float = 60.0


class DroppedPin(NamedTuple):
    """A pin that the table did not keep, or did not take.

    Attributes:
        key: The prefix.
        reason: ``expired`` and ``reclaimed``: the lease has ended. ``cap``: there was no room for
            all of it; the lease goes on, and the rest is pinned when there is room.
    """

    key: str
    reason: DropReason


@dataclass(slots=True, eq=False)
class _Lease(Generic[B]):
    """A wanted prefix, and the leading blocks of it that are pinned."""

    hashes: tuple[Hash, ...]
    renewed_s: float
    blocks: list[B] = field(default_factory=list)


class PinTable(Generic[B]):
    """Leases on prefixes; each holds one reference on each leading block of its prefix.

    The number of pinned blocks is capped. Where there is no room for all of a prefix, its leading
    part is pinned as far as it fits, and the rest when a lease ends. A new lease never pushes out
    an older one: with prefixes read in turn, and more of them than fit, replacing the least
    recently used pin would always replace the one that is read next, and nothing would be hit.
    Keeping those that are pinned gives hits for these. The order of use matters for what is
    reclaimed and what expires.

    Times must not decrease from call to call.
    """

    def __init__(self, pool: BlockPoolSeam[B], options: PinOptions) -> None:
        self._pool = pool
        self._ttl_s = options.ttl_s
        self._max_pinned_blocks = math.floor(options.max_share * pool.num_blocks)
        # Least recently renewed first.
        self._leases: OrderedDict[str, _Lease[B]] = OrderedDict()
        # Leases that lack room, those that lack it longest first.
        self._refused: dict[str, None] = {}
        # By the identity of the block: engines' blocks need not be hashable.
        self._num_leases_on: dict[int, int] = {}
        self._dropped: list[DroppedPin] = []

    @property
    def num_pinned_blocks(self) -> int:
        """How many different blocks are pinned; leases share leading blocks."""
        return len(self._num_leases_on)

    def is_wanted(self, key: str) -> bool:
        """Tell whether there is a lease on a prefix, pinned or not."""
        return key in self._leases

    def num_pinned_leading(self, hashes: Sequence[Hash]) -> int:
        """Return how many leading blocks of a prompt are pinned."""
        for number, block_hash in enumerate(hashes):
            block = self._pool.cached_block(block_hash)
            if block is None or id(block) not in self._num_leases_on:
                return number
        return len(hashes)

    def retain(self, key: str, hashes: Sequence[Hash], now_s: float) -> None:
        """Begin or renew a lease, and pin the leading blocks that are cached now.

        Args:
            key: Names the prefix. A lease on it with other hashes ends.
            hashes: Of the prefix's full blocks, first block first.
            now_s: The time.
        """
        chain = tuple(hashes)
        known = self._leases.get(key)
        is_other = known is not None and known.hashes != chain
        if is_other:
            self._end(key)
        if key not in self._leases:
            self._leases[key] = _Lease(chain, now_s)
        self.touch(key, now_s)
        self._pin(key)
        if is_other:
            self._fill()

    def advance(self, key: str, now_s: float) -> None:
        """Pin what has been cached of a prefix since; renews the lease if that is anything."""
        if key in self._leases and self._pin(key):
            self.touch(key, now_s)

    def touch(self, key: str, now_s: float) -> None:
        """Renew the lease, because a request used the prefix; unknown keys are ignored."""
        if key in self._leases:
            self._leases[key].renewed_s = now_s
            self._leases.move_to_end(key)

    def release(self, key: str) -> None:
        """End a lease that is not wanted any more; unknown keys are ignored."""
        if key in self._leases:
            self._end(key)
            self._fill()

    def release_all(self) -> None:
        """End all leases."""
        for key in list(self._leases):
            self._end(key)

    def expire(self, now_s: float) -> None:
        """End the leases that were not renewed for longer than allowed."""
        has_ended = False
        while self._leases:
            key, lease = next(iter(self._leases.items()))
            if now_s - lease.renewed_s <= self._ttl_s:
                break
            self._drop(key, "expired")
            has_ended = True
        if has_ended:
            self._fill()

    def reclaim(self, num_blocks: int) -> int:
        """End leases until that many more blocks are free.

        The least recently renewed go first, but only such as free a block: what a running request
        uses stays pinned, since nothing would be won. The blocks freed are not given to other
        leases.

        Args:
            num_blocks: How many blocks are needed.

        Returns:
            How many became free, which may be more or fewer.
        """
        num_before = self._pool.num_free()
        while victims := self._victims():
            for key in victims:
                num_freed = self._pool.num_free() - num_before
                if num_freed >= num_blocks:
                    return num_freed
                self._drop(key, "reclaimed")
        return self._pool.num_free() - num_before

    def take_dropped(self) -> tuple[DroppedPin, ...]:
        """Return what was dropped since the last call."""
        dropped = tuple(self._dropped)
        self._dropped.clear()
        return dropped

    def _victims(self) -> list[str]:
        """Return leases of which each frees a block, or one that several leases keep occupied.

        The tail tells: whoever uses the tail of a prefix uses all of it.
        """
        occupied: list[str] = []
        alone: list[str] = []
        for key, lease in self._leases.items():
            if lease.blocks:
                num_references = self._pool.ref_count(lease.blocks[-1])
                if num_references == 1:
                    alone.append(key)
                elif num_references == self._num_leases_on[id(lease.blocks[-1])]:
                    occupied.append(key)
        return alone or occupied[:1]

    def _pin(self, key: str) -> bool:
        """Pin what is cached of a wanted prefix and fits; return whether that is anything."""
        lease = self._leases[key]
        added: list[B] = []
        has_room = True
        for position in range(len(lease.blocks), len(lease.hashes)):
            block = self._pool.cached_block(lease.hashes[position])
            if block is None:
                break
            count = self._num_leases_on.get(id(block), 0)
            has_room = bool(count) or self.num_pinned_blocks < self._max_pinned_blocks
            if not has_room:
                break
            self._num_leases_on[id(block)] = count + 1
            added.append(block)
        self._pool.hold(added)
        lease.blocks.extend(added)
        self._note_room(key, has_room=has_room)
        return bool(added)

    def _note_room(self, key: str, *, has_room: bool) -> None:
        if has_room:
            self._refused.pop(key, None)
        elif key not in self._refused:
            self._refused[key] = None
            self._dropped.append(DroppedPin(key, "cap"))

    def _fill(self) -> None:
        """Give room that has become free to the leases that lack it."""
        for key in list(self._refused):
            if self.num_pinned_blocks >= self._max_pinned_blocks:
                return
            self._pin(key)

    def _drop(self, key: str, reason: DropReason) -> None:
        self._end(key)
        self._dropped.append(DroppedPin(key, reason))

    def _end(self, key: str) -> None:
        lease = self._leases.pop(key)
        self._refused.pop(key, None)
        for block in lease.blocks:
            count = self._num_leases_on[id(block)] - 1
            if count:
                self._num_leases_on[id(block)] = count
            else:
                del self._num_leases_on[id(block)]
        self._pool.let_go(lease.blocks[::-1])
