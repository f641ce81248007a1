"""The texts of one session, and which of them new prompts are made of."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parrot_backend.core.discovery.anchors import AnchorIndex
from parrot_backend.core.discovery.budget import Budget
from parrot_backend.core.discovery.matching import MIN_CHARS, Match, find_matches, num_equal
from parrot_backend.core.discovery.pieces import (
    Fresh,
    Piece,
    Pieces,
    Reference,
    Repeated,
    TextId,
)
from parrot_backend.core.discovery.rivals import has_rival
from parrot_backend.core.discovery.selection import Claim, Passage, select_passages
from parrot_backend.core.ids import VariableId

#: Characters of the texts that one session remembers; about 20 bytes of memory each.
MAX_SESSION_CHARS = 2**19

#: Calls of a stage follow one another with the same long beginning, which is read only once.
_NUM_RECENT = 8

#: Shorter texts, and shorter beginnings, are read as fast as they are compared.
_MIN_RECENT_CHARS = 512


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
        self._recent: deque[tuple[str, Pieces]] = deque(maxlen=_NUM_RECENT)
        self._last: tuple[tuple[str, ...], tuple[Pieces, ...]] | None = None

    @property
    def num_chars(self) -> int:
        """How much text is remembered."""
        return self._num_chars

    def add_value(self, variable: VariableId, value: str) -> None:
        """Remember the value of a variable.

        A value that another variable or an earlier prompt has too says of no prompt that it reads
        this one.
        """
        # It may be a newer version of what a text that was read lately begins with.
        self._recent.clear()
        self._last = None
        number = self._number_of.get(value)
        if number is None:
            self._add(value, variable)
            return
        known = self._known[number]
        if known.variable != variable:
            known.variable = None
        self._known.move_to_end(number)

    def read_call(self, texts: Sequence[str]) -> tuple[Pieces, ...]:
        """Return what each text of a call is made of; see :meth:`read`.

        The same call again, as where several choices are wanted, is not read again unless a value
        came between.
        """
        key = tuple(texts)
        if self._last is None or self._last[0] != key:
            budget = Budget.of(texts)
            self._last = key, tuple(self.read(text, budget) for text in texts)
        return self._last[1]

    def read(self, prompt: str, budget: Budget | None = None) -> Pieces:
        """Return what a text of a prompt is made of, and remember what is fresh in it.

        The pieces put together give the prompt, character by character.

        Args:
            prompt: The text.
            budget: What is left for its call; None if it is all of the call. What cannot be paid
                for counts as fresh, and is not remembered.
        """
        budget = Budget.of([prompt]) if budget is None else budget
        if not budget.may_look(len(prompt)):
            return (Fresh(0, len(prompt)),) if prompt else ()
        number = self._number_of.get(prompt)
        if number is not None:
            self._known.move_to_end(number)
            return (self._piece(0, len(prompt), number, 0),)
        begun = self._begun(prompt)
        start = begun[-1].end if begun else 0
        if not budget.may_read(len(prompt) - start):
            return (*begun, Fresh(start, len(prompt))) if prompt else ()
        found = find_matches(prompt, self._texts, self._index, budget, start)
        matches = [self._settled(prompt, match, budget) for match in found]
        passages = select_passages(prompt, matches, self._claim_of, start)
        pieces = (*begun, *self._pieces(start, len(prompt), passages))
        self._remember(prompt, pieces)
        return pieces

    def text_of(self, piece: Reference | Repeated) -> str:
        """Return the text that a piece stands for.

        Raises:
            KeyError: It was forgotten since.
        """
        text = self._texts[piece.text]
        return text[piece.offset : piece.offset + piece.end - piece.start]

    def _settled(self, prompt: str, match: Match, budget: Budget) -> Match:
        """Look for rivals of a whole value that may have some, unseen."""
        if not match.may_have_rivals or self._claim_of(match) is not Claim.WHOLE_VALUE:
            return match
        others = (
            (known.text, known.variable is not None)
            for number, known in self._known.items()
            if number != match.number
        )
        return match._replace(may_have_rivals=has_rival(prompt, match, others, budget))

    def _claim_of(self, match: Match) -> Claim:
        known = self._known[match.number]
        if known.variable is None:
            return Claim.EARLIER_PROMPT
        end = match.offset + match.end - match.start
        is_whole = match.offset <= known.first and end >= known.last
        return Claim.WHOLE_VALUE if is_whole else Claim.PART_OF_VALUE

    def _begun(self, prompt: str) -> list[Piece]:
        """Return the first pieces of a text that begins like one that was read lately."""
        longest = _MIN_RECENT_CHARS
        pieces: Pieces = ()
        for text, read in reversed(self._recent):
            length = num_equal(prompt, 0, text, 0)
            if length > longest:
                longest, pieces = length, read
        begun: list[Piece] = []
        for piece in pieces:
            again = self._again(prompt, piece)
            if again is None or piece.end > longest:
                break
            begun.append(again)
        return begun[:-1]  # the last one may go on further here

    def _again(self, prompt: str, piece: Piece) -> Piece | None:
        """Return what a piece of an earlier text is now; None if that was forgotten."""
        if isinstance(piece, Fresh):
            number = self._number_of.get(prompt[piece.start : piece.end])
            return piece if number is None else self._piece(piece.start, piece.end, number, 0)
        if piece.text not in self._known:
            return None
        if isinstance(piece, Repeated):
            return piece
        return self._piece(piece.start, piece.end, piece.text, piece.offset)

    def _remember(self, prompt: str, pieces: Pieces) -> None:
        for piece in pieces:
            if not isinstance(piece, Fresh):
                self._known.move_to_end(piece.text)
        for piece in pieces:
            if isinstance(piece, Fresh):
                text = prompt[piece.start : piece.end]
                if text not in self._number_of:
                    self._add(text, None)
        if len(prompt) >= _MIN_RECENT_CHARS:
            self._recent.append((prompt, pieces))

    def _pieces(self, start: int, end: int, passages: list[Passage]) -> Iterator[Piece]:
        for passage in passages:
            if passage.start > start:
                yield Fresh(start, passage.start)
            match = passage.match
            offset = match.offset + passage.start - match.start
            if passage.is_ambiguous:
                yield Repeated(passage.start, passage.end, TextId(match.number), offset)
            else:
                yield self._piece(passage.start, passage.end, match.number, offset)
            start = passage.end
        if start < end:
            yield Fresh(start, end)

    def _piece(self, start: int, end: int, number: int, offset: int) -> Reference | Repeated:
        known = self._known[number]
        if known.variable is None:
            return Repeated(start, end, TextId(number), offset)
        is_whole = offset <= known.first and offset + end - start >= known.last
        return Reference(start, end, TextId(number), offset, known.variable, is_whole)

    def _add(self, text: str, variable: VariableId | None) -> None:
        if not MIN_CHARS <= len(text) <= self._max_chars or text.isspace():
            return  # too short to be found, too long to be kept, or nothing
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
