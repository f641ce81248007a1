"""Which prefixes requests to come will read, and which engines keep them for that.

A boundary of a prompt is wanted while unfinished requests have it in the part of their prompt that
is known already, and while a session is expected to go on with it (``anticipation.py``): that is
the reference count. An engine that computes or holds a wanted prefix is told to keep it, and told
to let it go when the last reader that wanted it has ended. Engines bound and expire what they keep
by themselves, so a mistake here costs time and never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from parrot_backend.core.commands import Command, ReleasePrefixes, RetainPrefix
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, SessionId
from parrot_backend.core.prefix import PrefixBoundary, PrefixIndex

#: A request that has not ended, or a session that will have more.
Reader = NodeId | SessionId


class Retention:
    """Reference counts of prefixes.

    Args:
        prefixes: Which engine holds which prefix.
        min_tokens: Shorter prefixes are not worth keeping.
        emit: Takes commands.
    """

    def __init__(
        self, prefixes: PrefixIndex, min_tokens: int, emit: Callable[[Command], None]
    ) -> None:
        self._prefixes = prefixes
        self._min_tokens = min_tokens
        self._emit = emit
        self._count: dict[bytes, int] = {}
        self._wanted_by: dict[Reader, list[bytes]] = {}
        self._kept_on: dict[bytes, set[EngineId]] = {}

    def __len__(self) -> int:
        return len(self._count)

    def count(self, key: bytes) -> int:
        """Return how many readers want a prefix."""
        return self._count.get(key, 0)

    def expect(
        self, reader: Reader, boundaries: Iterable[PrefixBoundary], keepers: Collection[EngineId]
    ) -> None:
        """Count further boundaries of a request that is to come, or of a session.

        Args:
            reader: Who will read them.
            boundaries: What became known of its prompt; never the same twice.
            keepers: Engines that can keep prefixes.
        """
        wanted = self._wanted_by.setdefault(reader, [])
        for boundary in boundaries:
            if boundary.tokens < self._min_tokens:
                continue
            key = boundary.hash
            wanted.append(key)
            self._count[key] = self._count.get(key, 0) + 1
            holders = self._prefixes.holders_of(key)
            if holders:
                untold = set(holders).difference(self._kept_on.get(key, ()))
                for engine in sorted(untold):
                    if engine in keepers:
                        self._keep(key, engine, None)

    def to_keep(
        self, boundaries: Iterable[PrefixBoundary], engine: EngineId, num_readers: int
    ) -> tuple[bytes, ...]:
        """Return which prefixes an engine shall keep when it has computed them.

        Those that others than the present readers want; they count as kept from now on.

        Args:
            boundaries: The prefixes.
            engine: Where they are computed.
            num_readers: 1 for a request that reads them by being computed, 0 for a fill.
        """
        keys = [b.hash for b in boundaries if self._count.get(b.hash, 0) > num_readers]
        for key in keys:
            self._kept_on.setdefault(key, set()).add(engine)
        return tuple(keys)

    def continued(self, key: bytes, engine: EngineId, attempt: AttemptId) -> None:
        """Keep the prompt and output of a finished attempt, if a request to come begins so."""
        if self.count(key):
            self._keep(key, engine, attempt)

    def forget(self, reader: Reader) -> None:
        """Take a reader out of all counts: it has ended."""
        self._release(self._wanted_by.pop(reader, ()))

    def let_go(self, reader: Reader, key: bytes) -> None:
        """Take a reader out of the count of one prefix; one that it does not want is ignored."""
        wanted = self._wanted_by.get(reader, [])
        if key in wanted:
            wanted.remove(key)
            self._release((key,))

    def _release(self, keys: Iterable[bytes]) -> None:
        released: dict[EngineId, list[bytes]] = {}
        for key in keys:
            self._count[key] -= 1
            if not self._count[key]:
                del self._count[key]
                for engine in sorted(self._kept_on.pop(key, ())):
                    released.setdefault(engine, []).append(key)
        for engine, freed in released.items():
            self._emit(ReleasePrefixes(engine, tuple(freed)))

    def lose_engine(self, engine: EngineId) -> None:
        """Forget what an engine kept: it is gone."""
        for engines in self._kept_on.values():
            engines.discard(engine)

    def _keep(self, key: bytes, engine: EngineId, attempt: AttemptId | None) -> None:
        engines = self._kept_on.setdefault(key, set())
        if engine not in engines:
            engines.add(engine)
            self._emit(RetainPrefix(engine, key, attempt))
