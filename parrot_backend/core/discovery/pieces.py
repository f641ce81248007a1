"""What a prompt was found to be made of: the records of discovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from parrot_backend.core.ids import VariableId

#: Names one text of a text book; a later text has the larger number.
TextId = NewType("TextId", int)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Text that was not seen before in the session.

    Attributes:
        start: Where it begins in the prompt, in characters.
        end: Where it ends.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """Text of an earlier prompt, or text that several values explain equally well: no edge.

    Attributes:
        start: Where it begins in the prompt, in characters.
        end: Where it ends.
        text: The text it repeats.
        offset: Where it begins in that text.
    """

    start: int
    end: int
    text: TextId
    offset: int


@dataclass(frozen=True, slots=True)
class Reference:
    """The value of a variable, or a part of it: an edge.

    Attributes:
        start: Where it begins in the prompt, in characters.
        end: Where it ends.
        text: The value's text.
        offset: Where it begins in that value.
        variable: The variable.
        is_whole: All of the value is here, but perhaps for white space at its ends.
    """

    start: int
    end: int
    text: TextId
    offset: int
    variable: VariableId
    is_whole: bool


Piece = Fresh | Repeated | Reference

#: Pieces of one text, in order, without gaps.
Pieces = tuple[Piece, ...]
