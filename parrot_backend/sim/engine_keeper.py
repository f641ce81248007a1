"""What a simulated engine knows of boundaries: which are held, which are kept, what is told.

As the plug-in's keeper does for vLLM (``vllm_plugin.keeper``).
"""

from __future__ import annotations

from collections import OrderedDict

from parrot_backend.core.ids import AttemptId
from parrot_backend.sim.engine_live import Live
from parrot_backend.sim.engine_seam import CacheChanged
from parrot_backend.sim.kv_cache import KvCache
from parrot_backend.sim.kv_names import NameBook
from parrot_backend.sim.kv_node import Boundary, KvNode
from parrot_backend.sim.kv_pins import KvPins

#: Ended requests whose output can still be named, and boundaries by which a prefix can be kept
#: (the plug-in's numbers).
_MAX_ENDED = 1024
_MAX_CHAINS = 8192

#: Changes are collected for so long, unless nothing is left to do (the plug-in's number).
_MIN_INTERVAL_S = 0.05


class Keeper:
    """Boundaries of one engine.

    Args:
        cache: Its memory.
        pins: Whether prefixes can be kept.
        names: Follows which boundaries are held; None if that is of no interest.
    """

    def __init__(self, cache: KvCache, *, pins: bool, names: NameBook | None) -> None:
        self._cache = cache
        self._names = names
        self.pins = KvPins(cache) if pins else None
        #: Ended requests, and where their prompts end.
        self._ended: OrderedDict[AttemptId, tuple[Live, KvNode]] = OrderedDict()
        #: Tenant and boundaries of prompts that came, and how many of these lead to the key.
        self._chains: OrderedDict[bytes, tuple[str, tuple[Boundary, ...], int]] = OrderedDict()
        self._told_s = -_MIN_INTERVAL_S

    # --- requests -----------------------------------------------------------------------------

    def arrived(self, live: Live) -> None:
        """Take in the boundaries of a new request."""
        if self.pins is None:
            return
        chains, chain = self._chains, live.request.chain
        for number, (key, _) in enumerate(chain, 1):
            if key in chains:
                chains.move_to_end(key)
            else:
                chains[key] = (live.request.tenant, chain, number)
        while len(chains) > _MAX_CHAINS:
            chains.popitem(last=False)

    def begun(self, live: Live, now_s: float) -> None:
        """A request runs now: what it uses is kept on."""
        if self.pins:
            for key, _ in live.request.chain:
                self.pins.touch(key, now_s)

    def stored(self, live: Live, now_s: float) -> None:
        """A request has more of its prompt in the cache."""
        if self._names is None or live.hold is None:
            return
        for key in self._names.learn(live.request.chain, live.hold.node):
            if self.pins:
                self.pins.advance(key, now_s)

    def ended(self, live: Live, node: KvNode) -> None:
        """A request has ended; its prompt and output can be named."""
        self._ended[live.request.attempt] = (live, node)
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    # --- calls --------------------------------------------------------------------------------

    def extend(self, attempt: AttemptId, key: bytes) -> None:
        """Name the prompt and output of an ended request."""
        found = self._ended.get(attempt)
        if found is None:
            return
        live, node = found
        request = live.request
        chain = (*request.chain, (key, live.tail[1]))
        self._cache.name_tail(node, live.tail_name, key)
        last = live.tail[1] // self._cache.block_tokens
        found_node, depth = self._cache.find(request.tenant, chain, last)
        # The last token is not computed.
        is_held = found_node.start + depth >= (live.tail[1] - 1) // self._cache.block_tokens
        if self._names is not None and is_held and depth:
            self._names.put(key, found_node, found_node.start + depth)
        if self.pins is not None:
            self._chains[key] = (request.tenant, chain, len(chain))

    def retain(self, key: bytes, attempt: AttemptId | None, now_s: float) -> None:
        """Keep a prefix; with an ended request, its prompt and output."""
        if attempt is not None:
            self.extend(attempt, key)
        self._retain(key, now_s)

    def _retain(self, key: bytes, now_s: float) -> None:
        known = self._chains.get(key)
        if self.pins is not None and known is not None:
            tenant, chain, number = known
            chain = chain[:number]
            if chain[-1][1] >= self._cache.block_tokens:
                self.pins.retain(key, tenant, chain, now_s)

    def release(self, keys: tuple[bytes, ...]) -> None:
        """Keep prefixes no longer."""
        if self.pins is not None:
            for key in keys:
                self.pins.release(key)

    def reclaim(self, num_blocks: int) -> None:
        """Give back pins until so many more blocks are free, if that can be."""
        if self.pins is not None:
            self.pins.reclaim(num_blocks)

    def expire(self, now_s: float) -> None:
        """Give back what nobody used for too long."""
        if self.pins is not None:
            self.pins.expire(now_s)

    def report(self, now_s: float, *, is_last: bool) -> CacheChanged | None:
        """Return what there is to tell, if it is time to."""
        if self._names is None or not self._names.has_changes:
            return None
        if not is_last and now_s - self._told_s < _MIN_INTERVAL_S:
            return None
        held, lost = self._names.take_changes()
        if not (held or lost):
            return None
        self._told_s = now_s
        return CacheChanged(now_s, held, lost)
