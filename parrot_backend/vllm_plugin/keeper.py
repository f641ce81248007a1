"""Prefixes inside the engine: which are held, which are kept, and what there is to tell of them.

Joins ``PrefixTracker`` (what the cache holds) and ``PinTable`` (what it must not evict), and speaks
for both in reports.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam
from parrot_backend.vllm_plugin.hints import Hints
from parrot_backend.vllm_plugin.options import PluginOptions
from parrot_backend.vllm_plugin.pins import PinTable
from parrot_backend.vllm_plugin.prefixes import PrefixTracker

#: Ended requests whose blocks can still be kept by name.
_MAX_ENDED = 1024


class PrefixKeeper:
    """Follows the prefixes of requests with hints.

    Nothing is followed, and the engine makes no block events, before the first such request.

    Attributes:
        hit_tokens: Prompt tokens that were found in the cache since the start.
        pinned_hit_tokens: The part of them in pinned blocks.
        lost_pins: Pins that were dropped by cap, age or need since the start.
    """

    def __init__(self, core: CoreSeam, options: PluginOptions) -> None:
        self._core = core
        self._is_on = False
        self._pins: PinTable[Any] = PinTable(core.pool, options.pins())
        self._pins_are_allowed = options.pin
        self._tracker = PrefixTracker(core.block_tokens, forget_guard=self._is_wanted)
        self._ended: OrderedDict[str, Sequence[bytes]] = OrderedDict()
        self._held: dict[str, int] = {}
        self._lost: dict[str, None] = {}
        self.hit_tokens = 0
        self.pinned_hit_tokens = 0
        self.lost_pins = 0

    @property
    def num_pinned_blocks(self) -> int:
        """How many different blocks are pinned."""
        return self._pins.num_pinned_blocks

    @property
    def has_changes(self) -> bool:
        """Whether there is something new to tell."""
        return bool(self._held or self._lost)

    def configure(self, options: PluginOptions) -> None:
        """Take other options; pins begin anew."""
        self._pins.release_all()
        self._pins = PinTable(self._core.pool, options.pins())
        self._pins_are_allowed = options.pin

    # --- requests ----------------------------------------------------------------------------

    def learn(self, request: CoreRequest, hints: Hints, now_s: float) -> None:
        """A request with these boundaries has come."""
        if not hints.prefixes or not self._core.can_keep_prefixes:
            return
        self._begin()
        self._tracker.learn(hints.prefixes, request.block_hashes)
        for key in hints.retain:
            self._retain(key, now_s)
        self._note_changes(now_s)

    def begun(self, request: CoreRequest, hints: Hints, cached_tokens: int, now_s: float) -> None:
        """A request runs now; so many of its tokens were found in the cache."""
        self.hit_tokens += cached_tokens
        if not self._pins.num_pinned_blocks:
            return
        cached_blocks = cached_tokens // self._core.block_tokens
        pinned = self._pins.num_pinned_leading(request.block_hashes[:cached_blocks])
        self.pinned_hit_tokens += pinned * self._core.block_tokens
        for prefix in hints.prefixes:
            self._pins.touch(prefix.key, now_s)

    def ended(self, request: CoreRequest, hints: Hints) -> None:
        """A request has ended well: its prompt and output can be kept by its name."""
        if hints.name is None:
            return
        # The last token is not computed; with steps that overlap, it may count as if it were.
        computed_tokens = min(request.context_tokens, request.num_tokens - 1)
        num_blocks = computed_tokens // self._core.block_tokens
        self._ended[hints.name] = request.block_hashes[:num_blocks]
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    # --- keeping -----------------------------------------------------------------------------

    def retain(self, key: str, name: str | None, now_s: float) -> None:
        """Keep a prefix.

        Args:
            key: The prefix; unknown ones are ignored.
            name: The prefix is the prompt and output of the ended request of this name.
            now_s: The time.
        """
        if name is not None and name in self._ended and self._core.can_keep_prefixes:
            self._begin()
            self._tracker.learn_as(key, self._ended[name])
        self._retain(key, now_s)
        self._note_changes(now_s)

    def release(self, key: str) -> None:
        """Keep a prefix no longer."""
        self._pins.release(key)

    def release_all(self) -> None:
        """Keep nothing any longer."""
        self._pins.release_all()

    def expire(self, now_s: float) -> None:
        """Give back what nobody used for too long."""
        self._pins.expire(now_s)
        self._count_lost()

    def reclaim(self, num_blocks: int) -> int:
        """Give back pins until so many more blocks are free; return how many became free."""
        if num_blocks <= 0:
            return 0
        num_freed = self._pins.reclaim(num_blocks)
        self._count_lost()
        return num_freed

    # --- blocks ------------------------------------------------------------------------------

    def stored(self, block_hashes: Iterable[bytes], now_s: float) -> None:
        """Blocks can be found under these hashes."""
        for block_hash in block_hashes:
            self._tracker.stored(block_hash)
        self._note_changes(now_s)

    def removed(self, block_hashes: Iterable[bytes], now_s: float) -> None:
        """Blocks cannot be found any more."""
        for block_hash in block_hashes:
            self._tracker.removed(block_hash)
        self._note_changes(now_s)

    def cleared(self, now_s: float) -> None:
        """No block can be found any more."""
        self._tracker.cleared()
        self._note_changes(now_s)

    # --- reports -----------------------------------------------------------------------------

    def take_changes(self) -> dict[str, Any]:
        """Return what changed since the last call, for a report."""
        changes = {"held": list(self._held.items()), "lost": list(self._lost)}
        self._held, self._lost = {}, {}
        return changes

    def snapshot(self) -> dict[str, Any]:
        """Return all that is held, and let changes begin anew."""
        self.take_changes()
        return {"held": [tuple(held) for held in self._tracker.snapshot()], "lost": []}

    def _note_changes(self, now_s: float) -> None:
        changes = self._tracker.take_changes()
        for key, tokens in changes.held:
            self._lost.pop(key, None)
            self._held[key] = tokens
            self._pins.advance(key, now_s)
        for key in changes.lost:
            self._held.pop(key, None)
            self._lost[key] = None
        self._count_lost()

    def _count_lost(self) -> None:
        self.lost_pins += len(self._pins.take_dropped())

    def _begin(self) -> None:
        if not self._is_on:
            self._is_on = True
            for block_hash in self._core.watch_blocks():
                self._tracker.stored(block_hash)

    def _retain(self, key: str, now_s: float) -> None:
        hashes = self._tracker.hashes(key)
        if self._pins_are_allowed and hashes:
            self._pins.retain(key, [bytes(h) for h in hashes if isinstance(h, bytes)], now_s)

    def _is_wanted(self, key: str) -> bool:
        return self._pins.is_wanted(key)
