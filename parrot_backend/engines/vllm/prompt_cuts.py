"""How many leading tokens of a part do not depend on what follows a place inside of it. Pure.

The word at a cut may go on behind it, and tokenizers look at the character after a word, so the
tokens at the cut are open. White space that is followed by another character before the cut is not:
whatever comes later, the word in front of it has ended. Tokens that end there, or before, count.
Without such a place none of the part's tokens do: then the part's own start is what is settled.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What every tokenizer takes for white space.
_WHITE_SPACE = " \t\r\n"


def settled_end(text: str, offset: int) -> int | None:
    """Return the end of the last word before a cut that surely ends there; None if there is none.

    It depends on nothing after the cut.

    Args:
        text: The text.
        offset: The cut, in characters.
    """
    head = text[:offset].rstrip()
    space = max(head.rfind(character) for character in _WHITE_SPACE)
    return len(head[: max(space, 0)].rstrip()) or None


def place_in(final: str, text: str, end: int) -> int | None:
    """Return where a beginning of a text ends in what became of the text.

    Templates trim contents and quote them as JSON; what they did else is found out by nobody, and
    then there is no such place.

    Args:
        final: What is tokenised.
        text: What the client sent.
        end: Where the beginning ends in that; a word ends there.
    """
    head = text[:end]
    for plain in (head, head.lstrip()):
        if plain and final.startswith(plain):
            return len(plain)
    for plain in (head, head.lstrip()):
        quoted = json.dumps(plain, ensure_ascii=False)[1:-1]
        if quoted and final.startswith(quoted):
            return len(quoted)
    return None


class CutFinder:
    """Finds how many leading ids of a part are settled at a cut.

    Args:
        tokenizer: Makes the ids; it puts no tokens of its own round a text.
        anchor: Stands before each part but the first of a prompt while it is tokenised.
        num_anchor_ids: How many ids that makes.
    """

    def __init__(self, tokenizer: Tokenizer, anchor: str, num_anchor_ids: int) -> None:
        self._tokenizer = tokenizer
        self._anchor = anchor
        self._num_anchor_ids = num_anchor_ids

    def settled(
        self, text: str, final: str, ids: Sequence[int], offsets: Sequence[int], is_first: bool
    ) -> dict[int, int]:
        """Return for cuts how many leading ids depend on nothing behind them.

        Only white space before a cut may be all that there is of a part, and then a template may
        leave the part out: such a cut is missing in the result.

        Args:
            text: What the client sent.
            final: What was tokenised of it.
            ids: The ids of that.
            offsets: The cuts, in characters of ``text``.
            is_first: The part begins the prompt.
        """
        settled: dict[int, int] = {}
        places: dict[int, int] = {}
        for offset in offsets:
            if text[:offset].strip():
                settled[offset] = 0
            end = settled_end(text, offset)
            place = None if end is None else place_in(final, text, end)
            if place is not None:
                places[offset] = place
        counts = self._counts(final, ids, list(places.values()), is_first)
        settled.update(zip(places, counts, strict=True))
        return settled

    def _counts(
        self, text: str, ids: Sequence[int], places: Sequence[int], is_first: bool
    ) -> list[int]:
        """Return how many leading ids end at each place or before it."""
        if not places:
            return []
        if self._num_bytes is not None and self._is_left_as_is(text):
            ends = list(accumulate(map(self._num_bytes.__getitem__, ids)))
            # Where the tokenizer puts a space in front, that comes to something else.
            if ends and ends[-1] == len(text.encode()):
                return [bisect_right(ends, len(text[:place].encode())) for place in places]
        anchor, num_before = ("", 0) if is_first else (self._anchor, self._num_anchor_ids)
        (encoding,) = self._tokenizer.encode_batch([anchor + text], add_special_tokens=False)
        tokens = (encoding.char_to_token(len(anchor) + place) for place in places)
        return [0 if token is None else max(0, token - num_before) for token in tokens]

    def _is_left_as_is(self, text: str) -> bool:
        """Tell whether the tokenizer splits just this text: a changed one may be as long."""
        normalizer = self._tokenizer.normalizer
        return normalizer is None or normalizer.normalize_str(text) == text

    @cached_property
    def _num_bytes(self) -> dict[int, int] | None:
        """Of each token, if its letters stand for bytes: then offsets need not be asked for.

        Tokenizers take twice as long to tell offsets as to tell ids.
        """
        if '"ByteLevel"' not in self._tokenizer.to_str():
            return None
        sizes = {i: len(token) for token, i in self._tokenizer.get_vocab(False).items()}
        for token_id, added in self._tokenizer.get_added_tokens_decoder().items():
            sizes[token_id] = len(added.content.encode())
        return sizes
