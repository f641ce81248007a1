"""Whether another text explains a passage better than the value that is all in it."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.discovery.budget import TEST_COST, Budget
from parrot_backend.core.discovery.matching import MIN_CHARS, Match

#: A part of another value wins by more than ``MIN_CHARS``: that much on one side, or on both.
_HALF = MIN_CHARS // 2 + 1


def has_rival(
    prompt: str, match: Match, others: Iterable[tuple[str, bool]], budget: Budget
) -> bool:
    """Tell whether another text may win over a whole value, or is the same but for white space.

    Those are the rules of :mod:`~parrot_backend.core.discovery.selection`, for when not all
    matches are known; where it cannot be told, or the budget is spent, there may be one.

    Args:
        prompt: Where the match was found.
        match: All of a value, white space at its ends aside.
        others: The other texts, and whether they are values.
        budget: What it may cost.
    """
    passage = prompt[match.start : match.end]
    start, end = match.end - len(passage.lstrip()), match.start + len(passage.rstrip())
    own = prompt[start:end]
    before = len(prompt[:start].rstrip())
    after = len(prompt) - len(prompt[end:].lstrip())
    # Beginnings and ends of what would be longer, by a letter and by much.
    letter = [prompt[max(before - 1, 0) : end]] if before else []
    letter += [prompt[start : after + 1]] if after < len(prompt) else []
    much = [prompt[start - _HALF : end]] if start >= _HALF else []
    much += [prompt[start : end + _HALF]] if end + _HALF <= len(prompt) else []
    for text, is_value in others:
        if len(text) < len(own):
            continue
        budget.work_left -= TEST_COST + len(text)
        if budget.is_spent or any(one in text for one in (much if is_value else letter)):
            return True
        if is_value and own in text:
            stripped = text.strip()
            if stripped == own or (stripped in prompt and any(one in stripped for one in letter)):
                return True
    return False
