"""Which named prefixes the KV cache holds, exactly, learnt from the block pool's events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from parrot_backend.vllm_plugin.hints import PrefixHint

#: The hash of a full block; it covers all tokens up to the block's end.
Hash: TypeAlias = bytes | int

# One to make up for the key that was learnt, one to go on past a guarded key.
_CHECKS_PER_KEY = 2


class HeldPrefix(NamedTuple):
    """A prefix that the cache holds, with its length in full blocks, counted in tokens."""

    key: str
    tokens: int


class PrefixChanges(NamedTuple):
    """What changed since the last report; a key is in at most one of the two."""

    held: tuple[HeldPrefix, ...]
    lost: tuple[str, ...]


class _Boundary(NamedTuple):
    """Where a key ends: in the chain of hashes that the keys of one request share."""

    chain: tuple[Hash, ...]
    num_blocks: int

    @property
    def last(self) -> Hash:
        return self.chain[self.num_blocks - 1]


def _guard_nothing(key: str) -> bool:
    return False


class PrefixTracker:
    """Keeps, for every key it has learnt, whether the cache holds the key's prefix.

    A key counts as held exactly when the last of its blocks is cached. That is enough: whoever
    uses a block uses the blocks before it too, and vLLM frees the blocks of a request tail first,
    so among blocks that nobody uses, a block is always evicted before the blocks it follows. It
    holds for full attention; layers with a sliding window free leading blocks early.

    A block may be cached before its key is learnt. Therefore all cached hashes are counted, not
    only those of known keys; there are at most as many as blocks in the pool. Every event must be
    one block that was cached or evicted. vLLM's stored events for blocks that were merely reused
    (its report mode "full") would be counted as blocks that never leave, and must not come here.

    Args:
        block_tokens: Tokens per block.
        max_keys: Beyond this, the keys learnt least recently are forgotten.
        forget_guard: Tells whether a key must not be forgotten, for example because it is pinned.
            Such a key counts as learnt just now. At most two keys are looked at for each key
            learnt, so guarded keys may take the number above the limit.
    """

    def __init__(
        self,
        block_tokens: int,
        max_keys: int = 8192,
        forget_guard: Callable[[str], bool] = _guard_nothing,
    ) -> None:
        self._block_tokens = block_tokens
        self._max_keys = max_keys
        self._forget_guard = forget_guard
        # Least recently learnt first.
        self._boundaries: OrderedDict[str, _Boundary] = OrderedDict()
        self._keys_ending_at: dict[Hash, dict[str, None]] = {}
        # A hash counts as often as there are cached blocks with it: vLLM does not merge equal ones.
        self._num_cached: dict[Hash, int] = {}
        self._reported: dict[str, int] = {}
        self._touched: dict[str, None] = {}

    def learn(self, prefixes: Sequence[PrefixHint], block_hashes: Sequence[Hash]) -> None:
        """Take in the boundaries of a request.

        A known key is refreshed; one that comes with other hashes is replaced. A boundary shorter
        than one block, or beyond the given hashes, is ignored.

        Args:
            prefixes: The boundaries.
            block_hashes: Hashes of the request's full blocks, from its first token on.
        """
        chain: tuple[Hash, ...] | None = None
        for prefix in prefixes:
            num_blocks = prefix.tokens // self._block_tokens
            if not 0 < num_blocks <= len(block_hashes):
                continue
            known = self._boundaries.get(prefix.key)
            if known is not None and known.last == block_hashes[num_blocks - 1]:
                self._boundaries.move_to_end(prefix.key)
                continue
            if chain is None:
                chain = tuple(block_hashes)
            self._put(prefix.key, _Boundary(chain, num_blocks))

    def learn_as(self, key: str, block_hashes: Sequence[Hash]) -> None:
        """Take in one key that covers all the given full blocks."""
        self.learn((PrefixHint(key, len(block_hashes) * self._block_tokens),), block_hashes)

    def stored(self, block_hash: Hash) -> None:
        """Note that one more block with this hash is cached."""
        count = self._num_cached.get(block_hash, 0)
        self._num_cached[block_hash] = count + 1
        if not count:
            self._touched.update(self._keys_ending_at.get(block_hash, {}))

    def removed(self, block_hash: Hash) -> None:
        """Note that one block with this hash was evicted; one that was never stored is ignored."""
        count = self._num_cached.get(block_hash, 0)
        if count > 1:
            self._num_cached[block_hash] = count - 1
        elif count:
            del self._num_cached[block_hash]
            self._touched.update(self._keys_ending_at.get(block_hash, {}))

    def cleared(self) -> None:
        """Note that the cache is empty now."""
        self._num_cached.clear()
        self._touched.update(dict.fromkeys(self._reported))

    def is_held(self, key: str) -> bool:
        """Tell whether the cache holds all full blocks of a prefix."""
        boundary = self._boundaries.get(key)
        return boundary is not None and boundary.last in self._num_cached

    def hashes(self, key: str) -> Sequence[Hash]:
        """Return the hashes of a prefix's full blocks, first block first; none if unknown."""
        boundary = self._boundaries.get(key)
        return () if boundary is None else boundary.chain[: boundary.num_blocks]

    def take_changes(self) -> PrefixChanges:
        """Return the net changes since the last call.

        What was lost and is held again, or the reverse, is no change. A key that is held now with
        another length than reported is in ``held``.
        """
        held: list[HeldPrefix] = []
        lost: list[str] = []
        for key in self._touched:
            tokens = self._held_tokens(key)
            if tokens == self._reported.get(key, 0):
                continue
            if tokens:
                self._reported[key] = tokens
                held.append(HeldPrefix(key, tokens))
            else:
                del self._reported[key]
                lost.append(key)
        self._touched.clear()
        return PrefixChanges(tuple(held), tuple(lost))

    def snapshot(self) -> tuple[HeldPrefix, ...]:
        """Return everything that is held, least recently learnt first; takes no changes."""
        tokens_of = ((key, self._held_tokens(key)) for key in self._boundaries)
        return tuple(HeldPrefix(key, tokens) for key, tokens in tokens_of if tokens)

    def _held_tokens(self, key: str) -> int:
        if not self.is_held(key):
            return 0
        return self._boundaries[key].num_blocks * self._block_tokens

    def _put(self, key: str, boundary: _Boundary) -> None:
        if key in self._boundaries:
            self._remove(key)
        self._boundaries[key] = boundary
        self._keys_ending_at.setdefault(boundary.last, {})[key] = None
        self._touched[key] = None
        for _ in range(_CHECKS_PER_KEY):
            if len(self._boundaries) <= self._max_keys:
                return
            oldest = next(iter(self._boundaries))
            if self._forget_guard(oldest):
                self._boundaries.move_to_end(oldest)
            else:
                self._remove(oldest)

    def _remove(self, key: str) -> None:
        last = self._boundaries.pop(key).last
        keys = self._keys_ending_at[last]
        del keys[key]
        if not keys:
            del self._keys_ending_at[last]
        if key in self._reported:
            self._touched[key] = None
        else:
            self._touched.pop(key, None)
