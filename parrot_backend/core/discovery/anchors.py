"""Where short strings occur in many texts, so that long common passages are found by looking up.

Of a text, runs of ``SOURCE_RUN`` positions in every ``PERIOD`` are indexed, and of a prompt every
``PROMPT_STEP``-th position is looked up. Wherever two equal passages lie, one of the positions
looked up in each ``PERIOD`` characters falls on an indexed one, so no common passage of
``PERIOD + ANCHOR_CHARS - 1`` characters goes unseen, at a quarter of the look-ups and an eighth of
the memory that all positions would take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ANCHOR_CHARS = 16
PERIOD = 32
SOURCE_RUN = 4
PROMPT_STEP = SOURCE_RUN

#: An anchor that occurs more often, as in periodic texts, tells too little to be followed.
MAX_OCCURRENCES = 16

#: A position is the number of its text and, in the lower bits, the offset.
OFFSET_BITS = 32
OFFSET_MASK = (1 << OFFSET_BITS) - 1

_NONE: tuple[int, ...] = ()


class AnchorIndex:
    """Positions of anchors.

    Attributes:
        positions: Anchor -> its one position, its several positions, or minus their number where
            they are too many. To be read by who scans a text; changed by this class alone.
    """

    def __init__(self) -> None:
        self.positions: dict[str, int | list[int]] = {}

    def add(self, number: int, text: str) -> None:
        """Index a text under a number that none has."""
        positions = self.positions
        base = number << OFFSET_BITS
        for offset in _indexed(text):
            anchor = text[offset : offset + ANCHOR_CHARS]
            found = positions.get(anchor)
            if found is None:
                positions[anchor] = base | offset
            elif isinstance(found, list):
                if len(found) < MAX_OCCURRENCES:
                    found.append(base | offset)
                else:
                    positions[anchor] = -len(found) - 1
            elif found < 0:
                positions[anchor] = found - 1
            else:
                positions[anchor] = [found, base | offset]

    def remove(self, number: int, text: str) -> None:
        """Take a text out that was added as it is given here."""
        positions = self.positions
        base = number << OFFSET_BITS
        for offset in _indexed(text):
            anchor = text[offset : offset + ANCHOR_CHARS]
            found = positions[anchor]
            if isinstance(found, list):
                found.remove(base | offset)
                if len(found) == 1:
                    positions[anchor] = found[0]
            elif found < -1:
                positions[anchor] = found + 1
            else:
                del positions[anchor]

    def candidates(self, anchor: str) -> Sequence[int]:
        """Return the positions of an anchor, if they are few enough to be followed."""
        found = self.positions.get(anchor)
        if found is None:
            return _NONE
        if isinstance(found, list):
            return found
        return (found,) if found >= 0 else _NONE

    def is_crowded(self, anchor: str) -> bool:
        """Tell whether an anchor has more positions than are followed."""
        found = self.positions.get(anchor, 0)
        return isinstance(found, int) and found < 0


def _indexed(text: str) -> Iterator[int]:
    last = len(text) - ANCHOR_CHARS
    for start in range(0, last + 1, PERIOD):
        yield from range(start, min(start + SOURCE_RUN, last + 1))
