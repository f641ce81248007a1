"""Which passages of a prompt occur in known texts: the longest ones, in linear time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from parrot_backend.core.discovery.anchors import (
    ANCHOR_CHARS,
    OFFSET_BITS,
    OFFSET_MASK,
    PERIOD,
    PROMPT_STEP,
    AnchorIndex,
)
from parrot_backend.core.discovery.budget import COMPARISON_COST, TEST_COST, Budget

#: Shorter passages do not count: they are as well boilerplate that two texts have by chance. The
#: index finds all passages of this length.
MIN_CHARS = 48

#: How far before the end of a passage the search goes on, so that one that begins inside it and
#: ends after it is seen with all its rivals.
_STEP_BACK = PERIOD + ANCHOR_CHARS + 3 * PROMPT_STEP

#: Periods that are looked through for one that tells whether a match has rivals.
_MAX_PERIODS = 64


class Match(NamedTuple):
    """A passage of a prompt that a known text has too, as long as it can be at its place.

    Attributes:
        start: Where it begins in the prompt.
        end: Where it ends.
        number: The known text.
        offset: Where it begins in the known text.
        may_have_rivals: Others may have it too, unseen: its anchors are in too many texts.
    """

    start: int
    end: int
    number: int
    offset: int
    may_have_rivals: bool = False


def find_matches(
    prompt: str, texts: Mapping[int, str], index: AnchorIndex, budget: Budget, start: int = 0
) -> list[Match]:
    """Return the passages of ``MIN_CHARS`` and more that lie in known texts.

    One that lies inside another may be missing if it is more than ``MIN_CHARS`` shorter.

    Args:
        prompt: What is looked at.
        texts: Known texts by number.
        index: Anchors of these texts.
        budget: What it may cost.
        start: Where to begin; what is found may reach back before that.
    """
    return _Search(prompt, texts, index, budget).run(start)


class _Search:
    def __init__(
        self, prompt: str, texts: Mapping[int, str], index: AnchorIndex, budget: Budget
    ) -> None:
        self._prompt = prompt
        self._texts = texts
        self._index = index
        self._budget = budget
        # (text, where it would begin in the prompt) -> up to where the two were compared.
        self._compared: dict[tuple[int, int], int] = {}
        self._found: list[Match] = []
        self._furthest = Match(0, 0, 0, 0)

    def run(self, start: int) -> list[Match]:
        position = start - start % PROMPT_STEP
        while (position := self._index.next_known(self._prompt, position)) >= 0:
            num_complete = len(self._found)
            # All rivals of a match have an anchor in the period after the place it was found at.
            after = position + PERIOD
            while position < after:
                if self._compare_at(position):
                    after = position + PERIOD
                position += PROMPT_STEP
            if self._budget.is_spent:
                del self._found[num_complete:]  # their rivals may be unseen
                break
            back = self._furthest.end - _STEP_BACK
            position = max(position, back - back % PROMPT_STEP)
        return self._found

    def _compare_at(self, place: int) -> bool:
        """Compare with all texts that have the anchor here; tell whether one matches."""
        num_found = len(self._found)
        anchor = self._prompt[place : place + ANCHOR_CHARS]
        for packed in reversed(self._index.candidates(anchor)):
            number, offset = packed >> OFFSET_BITS, packed & OFFSET_MASK
            diagonal = (number, place - offset)
            if self._compared.get(diagonal, -1) >= place:
                continue
            if self._budget.is_spent:
                break
            if self._is_inside(place, number, offset):
                self._compared[diagonal] = place + PERIOD - 1
                continue
            match = self._extend(place, number, offset)
            self._compared[diagonal] = match.end
            if match.end - match.start >= MIN_CHARS:
                if self._may_have_rivals(match, place):
                    match = match._replace(may_have_rivals=True)
                self._found.append(match)
                if match.end > self._furthest.end:
                    self._furthest = match
        return len(self._found) > num_found

    def _may_have_rivals(self, match: Match, place: int) -> bool:
        """Tell whether others may have all of a match that was found at a place, unseen there.

        They may where an anchor about that place is in too many texts. Then it takes one period
        further on, without such anchors, in which no other text has a passage that is as long.
        """
        first = max(match.start, place - PERIOD + PROMPT_STEP)
        last = match.end - ANCHOR_CHARS
        if not self._is_crowded(first, min(place + PERIOD, last + 1)):
            return False
        passage = self._prompt[match.start : match.end]
        for begin in range(match.start, last - PERIOD + 1, PERIOD)[:_MAX_PERIODS]:
            self._budget.work_left -= TEST_COST
            if self._is_crowded(begin, begin + PERIOD):
                continue
            return any(
                packed >> OFFSET_BITS != match.number
                and offset >= at - match.start
                and self._texts[packed >> OFFSET_BITS].startswith(
                    passage, offset - at + match.start
                )
                for at in _places(begin, begin + PERIOD)
                for packed in self._index.candidates(self._prompt[at : at + ANCHOR_CHARS])
                for offset in (packed & OFFSET_MASK,)
            )
        return True

    def _is_crowded(self, start: int, end: int) -> bool:
        """Tell whether some anchor that begins in a span of the prompt is in too many texts."""
        prompt, index = self._prompt, self._index
        return any(index.is_crowded(prompt[p : p + ANCHOR_CHARS]) for p in _places(start, end))

    def _is_inside(self, place: int, number: int, offset: int) -> bool:
        """Tell whether a match here would lie inside the furthest one, and be much shorter."""
        start, end = self._furthest.start, self._furthest.end
        if place >= end:
            return False
        self._budget.work_left -= TEST_COST + end - start
        prompt, text = self._prompt, self._texts[number]
        if end < len(prompt) and text.startswith(prompt[place : end + 1], offset):
            return False
        before = offset - (place - start)
        if start and before > 0 and text.startswith(prompt[start - 1 : place], before - 1):
            return False
        middle = min(start + MIN_CHARS, place)
        before = offset - (place - middle)
        return before < 0 or not text.startswith(prompt[middle : end - MIN_CHARS], before)

    def _extend(self, place: int, number: int, offset: int) -> Match:
        prompt, text = self._prompt, self._texts[number]
        self._budget.work_left -= COMPARISON_COST
        if place >= offset and prompt.startswith(text, place - offset):
            self._budget.work_left -= len(text)
            return Match(place - offset, place - offset + len(text), number, 0)
        begin, end = place + ANCHOR_CHARS, offset + ANCHOR_CHARS
        ahead = num_equal(prompt, begin, text, end)
        behind = num_equal(prompt, place, text, offset, behind=True)
        self._budget.work_left -= ahead + behind
        return Match(place - behind, begin + ahead, number, offset - behind)


def _places(start: int, end: int) -> range:
    """Return the places in a span that are looked up."""
    return range(start + -start % PROMPT_STEP, end, PROMPT_STEP)


def num_equal(a: str, i: int, b: str, j: int, *, behind: bool = False) -> int:
    """Return how many characters are equal from ``i`` and ``j`` on, or before them."""
    limit = min(i, j) if behind else min(len(a) - i, len(b) - j)
    equal, size = 0, 32
    while equal < limit:
        size = min(size, limit - equal)
        shift = -equal - size if behind else equal
        if a[i + shift : i + shift + size] != b[j + shift : j + shift + size]:
            break
        equal += size
        size *= 2
    else:
        return equal
    limit = equal + size - 1
    while equal < limit:
        size = (limit - equal + 1) // 2
        shift = -equal - size if behind else equal
        if a[i + shift : i + shift + size] == b[j + shift : j + shift + size]:
            equal += size
        else:
            limit = equal + size - 1
    return equal
