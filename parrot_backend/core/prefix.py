"""Prefix hashes at segment boundaries, and the index of which engine holds which prefix.

The hash of a boundary covers everything before it, constants and generated values alike, so two
prompts share a prefix exactly when they share a boundary hash (the paper's PrefixHash, section
4.2). A collision of 16-byte BLAKE2b could only misplace a request, never change its result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from parrot_backend.core.ids import EngineId
from parrot_backend.core.prompt import PartKind, PromptPart

_DIGEST_BYTES = 16


class PrefixBoundary(NamedTuple):
    """One boundary: the hash of all before it, and its (estimated) length."""

    hash: bytes
    tokens: int


PrefixChain = tuple[PrefixBoundary, ...]


class PrefixHasher:
    """Boundaries of one prompt, part by part as they become known.

    Args:
        seed: Keeps apart what must not be shared: model, tenant and tools.
    """

    def __init__(self, seed: str) -> None:
        self._digest = blake2b(digest_size=_DIGEST_BYTES)
        self._chars = self._tokens = 0
        _update(self._digest, b"s", seed)

    def copy(self) -> PrefixHasher:
        """Return one that goes on by itself from here."""
        other = PrefixHasher("")
        other._digest = self._digest.copy()
        other._chars, other._tokens = self._chars, self._tokens
        return other

    def extend(self, parts: Iterable[PromptPart], tokens_per_char: float) -> PrefixChain:
        """Add the next parts and return their boundaries.

        Args:
            parts: Resolved parts. Roles are covered by the boundary of the text that follows.
            tokens_per_char: Estimate that turns lengths into tokens.
        """
        boundaries: list[PrefixBoundary] = []
        digest = self._digest
        for part in parts:
            is_role = part.kind is PartKind.ROLE
            _update(digest, b"r" if is_role else b"t", part.text)
            head = part.head.text
            if head:
                _update(digest, b"h", head)
            self._chars += len(part.text) + len(head)
            if not is_role:
                # The estimate may have fallen since; a longer prefix is never the shorter one.
                tokens = int(self._chars * tokens_per_char)
                if tokens > self._tokens:
                    self._tokens = tokens
                boundaries.append(PrefixBoundary(digest.digest(), self._tokens))
        return tuple(boundaries)


def prefix_chain(seed: str, parts: tuple[PromptPart, ...], tokens_per_char: float) -> PrefixChain:
    """Return the boundaries of a whole prompt, shortest first; see :class:`PrefixHasher`."""
    return PrefixHasher(seed).extend(parts, tokens_per_char)


def _update(digest: blake2b, tag: bytes, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    # The length makes the split into parts unambiguous.
    digest.update(b"%c%d:" % (tag, len(data)))
    digest.update(data)


@dataclass(frozen=True, slots=True)
class PrefixIndexConfig:
    """Limits of the index.

    Attributes:
        min_tokens: Shorter prefixes are not worth a placement; about one KV block.
        max_prefixes_per_engine: Least recently used ones are forgotten beyond this.
    """

    min_tokens: int = 32
    max_prefixes_per_engine: int = 8192


class _Holders(dict[EngineId, None]):
    """Several engines that hold one prefix, in order of record; ``most`` tokens were reported."""

    __slots__ = ("most",)

    def __init__(self, first: EngineId, most: int) -> None:
        super().__init__({first: None})
        self.most = most


class PrefixIndex:
    """Which engine holds, or will soon hold, the KV of which prefix.

    It is told of placements, and forgets the least recently used. Engines that report their cache
    correct it: their entries are exact but for what they are only about to compute. For engines
    that do not, an entry is a good guess and not a promise.

    Attributes:
        num_changes: Rises with each change of what engines hold.
    """

    def __init__(self, config: PrefixIndexConfig) -> None:
        self._config = config
        # Most prefixes are held by one engine, and need no container.
        self._engines_of: dict[bytes, EngineId | _Holders] = {}
        self.num_changes = 0
        # The length is known for what an engine reported, else the estimate of whoever asks counts.
        self._resident: dict[EngineId, OrderedDict[bytes, int | None]] = {}

    def add_engine(self, engine: EngineId) -> None:
        """Begin to track an engine with an empty cache."""
        self._resident[engine] = OrderedDict()

    def remove_engine(self, engine: EngineId) -> None:
        """Forget everything an engine held."""
        for key in self._resident.pop(engine, ()):
            self._drop(key, engine)

    def record(self, engine: EngineId, chain: PrefixChain) -> None:
        """Note that an engine computes, and so will hold, these prefixes."""
        resident, least = self._resident[engine], self._config.min_tokens
        for key, tokens in chain:
            if tokens < least:
                continue
            if key in resident:
                resident.move_to_end(key)
            else:
                self._add(engine, key, None)
        self._trim(engine)

    def report(
        self, engine: EngineId, held: Iterable[PrefixBoundary], lost: Iterable[bytes]
    ) -> None:
        """Note what an engine says of its cache: what it holds now, and what it held."""
        resident = self._resident[engine]
        for key in lost:
            if key in resident:
                del resident[key]
                self._drop(key, engine)
        for boundary in held:
            self._add(engine, boundary.hash, boundary.tokens)
        self._trim(engine)

    def report_all(self, engine: EngineId, held: Iterable[PrefixBoundary]) -> None:
        """Note that an engine holds exactly this."""
        self.report(engine, held, lost=list(self._resident[engine]))

    def give_up(self, engine: EngineId, chain: PrefixChain) -> None:
        """Note that an engine will not compute what it was to compute; what it holds, it holds."""
        if engine not in self._resident:
            return
        resident = self._resident[engine]
        for boundary in chain:
            if boundary.hash in resident and resident[boundary.hash] is None:
                del resident[boundary.hash]
                self._drop(boundary.hash, engine)

    def holds(self, engine: EngineId, key: bytes) -> bool:
        """Tell whether an engine holds, or is to hold, a prefix."""
        return key in self._resident[engine]

    def holders_of(self, key: bytes) -> Collection[EngineId]:
        """Return the engines that hold, or are to hold, one prefix; to be read at once."""
        found = self._engines_of.get(key)
        if found is None:
            return ()
        return found if isinstance(found, _Holders) else (found,)

    def engines_holding(self, key: bytes) -> tuple[EngineId, ...]:
        """Return the engines that hold, or are to hold, one prefix."""
        return tuple(self.holders_of(key))

    def longest_held(self, chain: PrefixChain) -> Collection[EngineId]:
        """Return who holds the longest prefix any engine holds; to be read at once."""
        engines_of = self._engines_of
        for boundary in reversed(chain):
            if boundary.hash in engines_of:
                return self.holders_of(boundary.hash)
        return ()

    def engines_with(self, chain: PrefixChain) -> tuple[EngineId, ...]:
        """Return the engines that hold the longest prefix any engine holds, in order of record."""
        return tuple(self.longest_held(chain))

    def most_tokens(self, boundary: PrefixBoundary) -> int:
        """Return a length that the prefix has on no engine that holds it more than."""
        found = self._engines_of.get(boundary.hash)
        if isinstance(found, _Holders):
            return max(boundary.tokens, found.most)
        reported = None if found is None else self._resident[found][boundary.hash]
        return max(boundary.tokens, reported or 0)

    def held_anywhere(self, chain: PrefixChain) -> PrefixChain:
        """Return those prefixes of a prompt that any engine holds."""
        engines_of = self._engines_of
        return tuple(boundary for boundary in chain if boundary.hash in engines_of)

    def resident_tokens(self, engine: EngineId, chain: PrefixChain) -> int:
        """Return the length of the longest prefix of the chain that the engine holds."""
        resident = self._resident[engine]
        for key, estimated in reversed(chain):
            if key in resident:
                tokens = resident[key]
                return estimated if tokens is None else tokens
        return 0

    def _add(self, engine: EngineId, key: bytes, tokens: int | None) -> None:
        resident = self._resident[engine]
        if key in resident and resident[key] == tokens:
            return
        resident[key] = tokens
        self.num_changes += 1
        found = self._engines_of.get(key)
        if found is None or found == engine:
            self._engines_of[key] = engine
            return
        if not isinstance(found, _Holders):
            found = self._engines_of[key] = _Holders(found, self._resident[found][key] or 0)
        found[engine] = None
        found.most = max(found.most, tokens or 0)

    def _trim(self, engine: EngineId) -> None:
        resident = self._resident[engine]
        while len(resident) > self._config.max_prefixes_per_engine:
            oldest, _ = resident.popitem(last=False)
            self._drop(oldest, engine)

    def _drop(self, key: bytes, engine: EngineId) -> None:
        self.num_changes += 1
        found = self._engines_of[key]
        if isinstance(found, _Holders) and len(found) > 1:
            del found[engine]
        else:
            del self._engines_of[key]
