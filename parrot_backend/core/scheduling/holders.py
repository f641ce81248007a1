"""Which engines hold how much of one prompt, looked up as it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from parrot_backend.core.ids import EngineId
from parrot_backend.core.prefix import PrefixChain, PrefixIndex


class Holders:
    """The engines that hold some of a prompt.

    They are not listed, since a common beginning is on all engines.

    Args:
        prefixes: Who holds what; nothing of it may change meanwhile.
        chain: The boundaries of the prompt.
    """

    __slots__ = ("_chain", "_prefixes", "_tokens")

    def __init__(self, prefixes: PrefixIndex, chain: PrefixChain) -> None:
        self._prefixes = prefixes
        self._chain = prefixes.held_anywhere(chain)
        self._tokens: dict[EngineId, int] = {}

    def tokens(self, engine: EngineId) -> int:
        """Return how much of the prompt an engine holds."""
        if not self._chain:
            return 0
        tokens = self._tokens.get(engine)
        if tokens is None:
            tokens = self._prefixes.resident_tokens(engine, self._chain)
            self._tokens[engine] = tokens
        return tokens

    def first(self, number: int) -> Iterator[EngineId]:
        """Yield so many of those that hold something, who holds most first."""
        found = set[EngineId]()
        for boundary in reversed(self._chain):
            # Of one boundary no more are looked at than are wanted, new or not.
            holders: Iterator[EngineId] = islice(self._prefixes.holders_of(boundary.hash), number)
            for engine in holders:
                if engine in found:
                    continue
                found.add(engine)
                yield engine
                if len(found) == number:
                    return
