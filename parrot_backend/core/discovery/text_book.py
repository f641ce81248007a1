"""The texts of one session, and which of them new prompts are made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from parrot_backend.core.discovery.anchors import AnchorIndex
from parrot_backend.core.discovery.matching import MIN_CHARS, Match, find_matches
from parrot_backend.core.discovery.pieces import (
    Fresh,
    Piece,
    Pieces,
    Reference,
    Repeated,
    TextId,
)
from parrot_backend.core.discovery.selection import Claim, Passage, select_passages
from parrot_backend.core.ids import VariableId

#: Characters of the texts that one session remembers; about 20 bytes of memory each.
MAX_SESSION_CHARS = 2**19


@dataclass(slots=True)
class _Known:
    """One text.

    Attributes:
        variable: Whose value it is; None for text of a prompt, and if it is the value of several.
        first: Where the text begins after white space.
        last: Where it ends before white space.
    """

    text: str
    variable: VariableId | None
    first: int
    last: int


class TextBook:
    """What has been said in a session.

    Args:
        max_chars: How much text is remembered; what was not used for the longest is forgotten.
    """

    def __init__(self, max_chars: int = MAX_SESSION_CHARS) -> None:
        self._max_chars = max_chars
        self._num_chars = 0
        self._next_number = 0
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._texts: dict[int, str] = {}
        self._number_of: dict[str, int] = {}
        self._index = AnchorIndex()

    @property
    def num_chars(self) -> int:
        """How much text is remembered."""
        return self._num_chars

    def add_value(self, variable: VariableId, value: str) -> None:
        """Remember the value of a variable.

        A value that another variable or an earlier prompt has too says of no prompt that it reads
        this one.
        """
        number = self._number_of.get(value)
        if number is None:
            self._add(value, variable)
            return
        known = self._known[number]
        if known.variable != variable:
            known.variable = None
        self._known.move_to_end(number)

    def read(self, prompt: str) -> Pieces:
        """Return what a text of a prompt is made of, and remember what is fresh in it.

        The pieces put together give the prompt, character by character.
        """
        matches = find_matches(prompt, self._texts, self._index)
        pieces = tuple(self._pieces(len(prompt), select_passages(matches, self._claim_of)))
        for piece in pieces:
            if not isinstance(piece, Fresh):
                self._known.move_to_end(piece.text.number)
        for piece in pieces:
            if isinstance(piece, Fresh):
                text = prompt[piece.start : piece.end]
                if text not in self._number_of:
                    self._add(text, None)
        return pieces

    def text_of(self, piece: Reference | Repeated) -> str:
        """Return the text that a piece stands for.

        Raises:
            KeyError: It was forgotten since.
        """
        text = self._texts[piece.text.number]
        return text[piece.offset : piece.offset + piece.end - piece.start]

    def _claim_of(self, match: Match) -> Claim:
        known = self._known[match.number]
        if known.variable is None:
            return Claim.EARLIER_PROMPT
        end = match.offset + match.end - match.start
        is_whole = match.offset <= known.first and end >= known.last
        return Claim.WHOLE_VALUE if is_whole else Claim.PART_OF_VALUE

    def _pieces(self, length: int, passages: list[Passage]) -> Iterator[Piece]:
        end = 0
        for passage in passages:
            if passage.start > end:
                yield Fresh(end, passage.start)
            yield self._piece(passage)
            end = passage.end
        if end < length:
            yield Fresh(end, length)

    def _piece(self, passage: Passage) -> Piece:
        match, start, end = passage.match, passage.start, passage.end
        offset = match.offset + start - match.start
        text, known = TextId(match.number), self._known[match.number]
        if known.variable is None or passage.is_ambiguous:
            return Repeated(start, end, text, offset)
        is_whole = offset <= known.first and offset + end - start >= known.last
        return Reference(start, end, text, offset, known.variable, is_whole)

    def _add(self, text: str, variable: VariableId | None) -> None:
        if not MIN_CHARS <= len(text) <= self._max_chars:
            return  # too short to be found, or too long to be kept
        self._num_chars += len(text)
        while self._num_chars > self._max_chars:
            self._forget_oldest()
        number = self._next_number
        self._next_number += 1
        last = len(text.rstrip())
        self._known[number] = _Known(text, variable, len(text) - len(text.lstrip()), last)
        self._texts[number] = text
        self._number_of[text] = number
        self._index.add(number, text)

    def _forget_oldest(self) -> None:
        number, known = self._known.popitem(last=False)
        del self._texts[number]
        del self._number_of[known.text]
        self._index.remove(number, known.text)
        self._num_chars -= len(known.text)
