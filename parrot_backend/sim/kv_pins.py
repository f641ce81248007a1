"""Which cached prefixes must not be evicted, because requests to come will read them.

What the plug-in does (``vllm_plugin.pins``), by runs of blocks: leases that end when they are not
renewed, a cap on the blocks that all of them keep, and leases that are given back on need.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from parrot_backend.sim.kv_cache import KvCache
from parrot_backend.sim.kv_node import Boundary, Hold, KvNode


@dataclass(slots=True, eq=False)
class _Lease:
    """A wanted prefix: its boundaries, and what is kept of it."""

    tenant: str
    chain: tuple[Boundary, ...]
    renewed_s: float
    hold: Hold | None = None


class KvPins:
    """Leases on prefixes; no lease pushes out an older one.

    Args:
        cache: Where the blocks are.
        max_share: Of all blocks, at most this share is kept.
        ttl_s: A lease that was not renewed for longer ends.
    """

    def __init__(
        self,
        cache: KvCache,
        max_share: float = 0.5,
        ttl_s: float = 60.0,
    ) -> None:
        self._cache = cache
        self._max_blocks = int(max_share * cache.num_blocks)
        self._ttl_s = ttl_s
        self._leases: OrderedDict[bytes, _Lease] = OrderedDict()
        self._refused: dict[bytes, None] = {}
        #: How many leases keep how many blocks of a node.
        self._depths: dict[KvNode, dict[int, int]] = {}
        #: The same, but for leases that end in a node only.
        self._ends: dict[KvNode, dict[int, int]] = {}
        self.num_pinned_blocks = 0

    def __bool__(self) -> bool:
        return bool(self._leases)

    def __contains__(self, key: bytes) -> bool:
        return key in self._leases

    def retain(self, key: bytes, tenant: str, chain: tuple[Boundary, ...], now_s: float) -> None:
        """Begin or renew a lease, and keep what is cached of the prefix now."""
        known = self._leases.get(key)
        if known is None:
            self._leases[key] = _Lease(tenant, chain, now_s)
        self.touch(key, now_s)
        self._pin(key)

    def advance(self, key: bytes, now_s: float) -> None:
        """Keep what has been cached of a wanted prefix since."""
        if key in self._leases and self._pin(key):
            self.touch(key, now_s)

    def touch(self, key: bytes, now_s: float) -> None:
        """Renew a lease, because a request used the prefix; unknown keys are ignored."""
        lease = self._leases.get(key)
        if lease is not None:
            lease.renewed_s = now_s
            self._leases.move_to_end(key)

    def release(self, key: bytes) -> None:
        """End a lease; unknown keys are ignored."""
        if key in self._leases:
            self._end(key)
            self._fill()

    def expire(self, now_s: float) -> None:
        """End the leases that were not renewed for too long."""
        has_ended = False
        while self._leases:
            key, lease = next(iter(self._leases.items()))
            if now_s - lease.renewed_s <= self._ttl_s:
                break
            self._end(key)
            has_ended = True
        if has_ended:
            self._fill()

    def reclaim(self, num_blocks: int) -> None:
        """End leases that nobody uses, the least recently renewed first, until so many are free."""
        if num_blocks <= 0:
            return
        goal = self._cache.num_free + num_blocks
        for key in list(self._leases):
            if self._cache.num_free >= goal:
                return
            hold = self._leases[key].hold
            if hold is not None and not self._is_used(hold.node, hold.depth):
                self._end(key)

    def _is_used(self, node: KvNode, depth: int) -> bool:
        """Tell whether a request holds a block of a node, directly or by what comes after it."""
        holders = node.full + sum(n for d, n in (node.partial or {}).items() if d >= depth)
        behind = [child for child in node.children.values() if child.num_held]
        leases = sum(n for d, n in self._ends.get(node, {}).items() if d >= depth)
        if holders - len(behind) > leases:
            return True
        return any(self._is_used(child, 1) for child in behind)

    def _pin(self, key: bytes) -> bool:
        """Keep what is cached and fits; return whether that is more than before."""
        lease, cache = self._leases[key], self._cache
        most = lease.chain[-1][1] // cache.block_tokens
        node, depth = cache.find(lease.tenant, lease.chain, most)
        before = 0 if lease.hold is None else lease.hold.num_blocks
        left = self._max_blocks - self.num_pinned_blocks
        path = node.path()
        for each in path:
            wanted = depth if each is node else each.length
            added = wanted - max(self._depths.get(each, (0,)))
            if added > left:
                node, depth = each, wanted - added + left
                break
            left -= max(0, added)
        parent = node.parent
        if not depth and parent is not None:
            node, depth = parent, parent.length
        if node.start + depth < most:
            self._refused[key] = None
        else:
            self._refused.pop(key, None)
        if node.start + depth <= before:
            return False
        new = cache.hold(node, depth)
        self._count(new, 1)
        self._drop(lease)
        lease.hold = new
        return True

    def _fill(self) -> None:
        """Give room that has become free to the leases that lack it."""
        for key in list(self._refused):
            if self.num_pinned_blocks >= self._max_blocks:
                return
            self._pin(key)

    def _end(self, key: bytes) -> None:
        self._refused.pop(key, None)
        self._drop(self._leases.pop(key))

    def _drop(self, lease: _Lease) -> None:
        hold, lease.hold = lease.hold, None
        if hold is not None:
            self._count(hold, -1)
            self._cache.release(hold, hold.num_blocks * self._cache.block_tokens)

    def _count(self, hold: Hold, change: int) -> None:
        _add(self._ends, hold.node, hold.depth, change)
        for node in hold.node.path():
            before = max(self._depths.get(node, (0,)))
            _add(self._depths, node, hold.depth if node is hold.node else node.length, change)
            self.num_pinned_blocks += max(self._depths.get(node, (0,))) - before


def _add(counts: dict[KvNode, dict[int, int]], node: KvNode, depth: int, change: int) -> None:
    of_node = counts.setdefault(node, {})
    of_node[depth] = of_node.get(depth, 0) + change
    if not of_node[depth]:
        del of_node[depth]
        if not of_node:
            del counts[node]
