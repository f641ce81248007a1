"""Which of several known texts a passage of a prompt comes from, if that can be told.

Each character goes to the best of the passages that cover it. The longer passage is the better
one, but for these:

* A *whole value*, and a text of an earlier prompt, count ``MIN_CHARS`` more than they are long: a
  value that happens to go on a little like the prompt, or repeats what the user wrote, must
  explain as much as counts by itself before it wins over what is there word for word.
* Of equal ones a whole value is better than a text of an earlier prompt, and both are better than
  a part of a value.
* White space at the ends of a passage counts for nothing.
* Two values that explain the same passage equally well explain nothing: whether the older or the
  newer version of a text was meant cannot be told from what they share. Newer is not better by
  itself; it wins by explaining more.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from parrot_backend.core.discovery.matching import MIN_CHARS, Match


class Claim(IntEnum):
    """What a passage is of the text it lies in; the smaller one wins where both are as long."""

    WHOLE_VALUE = 0
    EARLIER_PROMPT = 1
    PART_OF_VALUE = 2


class Passage(NamedTuple):
    """A piece of a prompt and where it comes from.

    Attributes:
        start: Where it begins in the prompt.
        end: Where it ends.
        match: What explains it, perhaps together with more around it.
        claim: What the match is of its text.
        is_ambiguous: Another text explains the same equally well.
    """

    start: int
    end: int
    match: Match
    claim: Claim
    is_ambiguous: bool


def select_passages(
    prompt: str, matches: Iterable[Match], claim_of: Callable[[Match], Claim], begin: int = 0
) -> list[Passage]:
    """Return passages that do not overlap, from left to right, of ``MIN_CHARS`` and more.

    Args:
        prompt: Where the matches were found.
        matches: What was found.
        claim_of: Tells what a match is of its text.
        begin: What lies before that is not looked at.
    """
    rivals = sorted(_without_equals(prompt, matches, claim_of), key=lambda rival: rival.match.start)
    bounds = sorted({max(p, begin) for r in rivals for p in (r.match.start, r.match.end)})
    chosen: list[Passage] = []
    heap: list[tuple[int, Claim, int, _Rival]] = []
    position = 0
    for start, end in pairwise(bounds):
        while position < len(rivals) and rivals[position].match.start <= start:
            rival = rivals[position]
            heapq.heappush(heap, (-rival.score, rival.claim, position, rival))
            position += 1
        while heap and heap[0][3].match.end <= start:
            heapq.heappop(heap)
        if not heap:
            continue
        best = heap[0][3]
        if chosen and chosen[-1].match is best.match and chosen[-1].end == start:
            start = chosen.pop().start
        chosen.append(Passage(start, end, best.match, best.claim, best.is_ambiguous))
    return [passage for passage in chosen if passage.end - passage.start >= MIN_CHARS]


class _Rival(NamedTuple):
    match: Match
    claim: Claim
    score: int
    is_ambiguous: bool


def _without_equals(
    prompt: str, matches: Iterable[Match], claim_of: Callable[[Match], Claim]
) -> Iterable[_Rival]:
    """Return for each passage the best match, ambiguous if another text's is as good."""
    best: dict[tuple[int, int], _Rival] = {}
    for match in matches:
        claim = claim_of(match)
        passage = prompt[match.start : match.end]
        end = match.start + len(passage.rstrip())
        start = match.end - len(passage.lstrip())
        bonus = 0 if claim is Claim.PART_OF_VALUE else MIN_CHARS
        is_doubtful = claim is not Claim.EARLIER_PROMPT and match.may_have_rivals
        rival = _Rival(match, claim, end - start + bonus, is_doubtful)
        before = best.get((start, end))
        if before is None or claim < before.claim:
            best[start, end] = rival
        elif claim is before.claim:
            is_ambiguous = is_doubtful or before.is_ambiguous
            is_ambiguous = is_ambiguous or match.number != before.match.number
            longer = max(before, rival, key=lambda r: (r.match.end - r.match.start, -r.match.start))
            best[start, end] = longer._replace(is_ambiguous=is_ambiguous)
    return best.values()
