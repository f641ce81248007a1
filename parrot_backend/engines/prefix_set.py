"""A prefix cache reduced to what matters outside an engine: which prefixes it has seen.

Prompts go in as parts; the prefixes that end at a part's end are kept, the latest ones when there
are too many. A token is a word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from parrot_backend.core.prompt import PartKind, PromptPart


@dataclass(frozen=True, slots=True)
class Boundary:
    """The end of a part: the hash of everything up to it, and how many tokens that is."""

    key: int
    num_tokens: int


class PrefixSet:
    """Prefixes at segment boundaries, least recently used ones forgotten first.

    Args:
        max_prefixes: How many are kept.
    """

    def __init__(self, max_prefixes: int = 65_536) -> None:
        self._max_prefixes = max_prefixes
        self._seen: OrderedDict[int, None] = OrderedDict()
        # The same constants come with every call, and counting costs more than all else here.
        self._count_words = lru_cache(maxsize=1024)(_count_words)

    def boundaries(
        self, salt: str | None, parts: Iterable[PromptPart], in_front: str = ""
    ) -> tuple[Boundary, ...]:
        """Return the boundaries of a prompt, in order; prompts of different salts share none.

        Args:
            salt: Keeps caches apart.
            parts: The prompt.
            in_front: What stands before it, such as tools.
        """
        key, num_tokens = hash((salt, in_front)), self._count_words(in_front)
        found = []
        for part in parts:
            is_role = part.kind is PartKind.ROLE
            key = hash((key, is_role, part.text, part.head.text))
            num_tokens += self._count_words(part.head.text)
            num_tokens += 1 if is_role else self._count_words(part.text)
            found.append(Boundary(key, num_tokens))
        return tuple(found)

    def cached_tokens(self, boundaries: tuple[Boundary, ...]) -> int:
        """Return the length of the longest known prefix.

        The last token of a prompt never counts, because an engine has to compute something to
        begin with.
        """
        for boundary in reversed(boundaries):
            if boundary.key in self._seen:
                self._seen.move_to_end(boundary.key)
                return max(0, min(boundary.num_tokens, boundaries[-1].num_tokens - 1))
        return 0

    def remember(self, boundaries: tuple[Boundary, ...]) -> None:
        """Add the prefixes of a prompt."""
        for boundary in boundaries:
            self._seen[boundary.key] = None
            self._seen.move_to_end(boundary.key)
        while len(self._seen) > self._max_prefixes:
            self._seen.popitem(last=False)


def _count_words(text: str) -> int:
    return len(text.split())
