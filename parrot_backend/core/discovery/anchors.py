"""Where short strings occur in many texts, so that long common passages are found by looking up.

Of a text, runs of ``SOURCE_RUN`` positions in every ``PERIOD`` are indexed, and of a prompt every
``PROMPT_STEP``-th position is looked up. Wherever two equal passages lie, one of the positions
looked up in each ``PERIOD`` characters falls on an indexed one, so no common passage of
``PERIOD + ANCHOR_CHARS - 1`` characters goes unseen, at a quarter of the look-ups and an eighth of
the memory that all positions would take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

ANCHOR_CHARS = 16
PERIOD = 32
SOURCE_RUN = 4
PROMPT_STEP = SOURCE_RUN

#: An anchor that occurs more often, as in periodic texts and in versions of one text, is crowded:
#: it is followed to the newest texts alone, which are those that prompts mostly have.
MAX_OCCURRENCES, _NUM_NEWEST = 16, 4

#: A position is the number of its text and, in the lower bits, the offset.
OFFSET_BITS = 32
OFFSET_MASK = (1 << OFFSET_BITS) - 1

_NONE: tuple[int, ...] = ()

#: So many places are looked up at once.
_BLOCK_CHARS = 1024

#: Each match is one anchor, and goes on to the next of its kind. Slicing one by one takes longer.
_EVERY_PERIOD = re.compile(f"(?s)(?=(.{{{ANCHOR_CHARS}}})).{{1,{PERIOD}}}")
_END_TO_END = re.compile(f"(?s).{{{ANCHOR_CHARS}}}")


class AnchorIndex:
    """Positions of anchors.

    Attributes:
        positions: Anchor -> its one position, or its several positions; of a crowded one minus
            their number, and then one in each of the newest texts. To be read by who scans a text;
            changed by this class alone.
    """

    def __init__(self) -> None:
        self.positions: dict[str, int | list[int]] = {}

    def add(self, number: int, text: str) -> None:
        """Index a text under a number above those of all before."""
        positions = self.positions
        for anchors, packed in _indexed(number, text):
            new = dict(zip(anchors, packed, strict=True))
            if len(new) < len(anchors):
                for anchor, position in zip(anchors, packed, strict=True):
                    self._add(anchor, position)
                continue
            for anchor in positions.keys() & new.keys():
                self._add(anchor, new.pop(anchor))
            positions.update(new)

    def _add(self, anchor: str, position: int) -> None:
        found = self.positions.get(anchor)
        if found is None:
            self.positions[anchor] = position
        elif not isinstance(found, list):
            self.positions[anchor] = [found, position]
        elif found[0] < 0:
            found[0] -= 1
            _add_newest(found, position)
        elif len(found) < MAX_OCCURRENCES:
            found.append(position)
        else:
            crowd = self.positions[anchor] = [-len(found) - 1]
            for each in (*found, position):
                _add_newest(crowd, each)

    def remove(self, number: int, text: str) -> None:
        """Take a text out that was added as it is given here."""
        for anchors, packed in _indexed(number, text):
            for anchor, position in zip(anchors, packed, strict=True):
                self._remove(anchor, position)

    def _remove(self, anchor: str, position: int) -> None:
        found = self.positions[anchor]
        if not isinstance(found, list):
            del self.positions[anchor]
            return
        is_crowd = found[0] < 0
        if not is_crowd or position in found:
            found.remove(position)
        if is_crowd:
            found[0] += 1
            if -found[0] == len(found) - 1:
                del found[0]  # these are all there are
        if not found:
            del self.positions[anchor]
        elif len(found) == 1 and found[0] >= 0:
            self.positions[anchor] = found[0]

    def candidates(self, anchor: str) -> Sequence[int]:
        """Return the positions of an anchor that are followed."""
        found = self.positions.get(anchor)
        if found is None:
            return _NONE
        if isinstance(found, list):
            return found if found[0] >= 0 else found[1:]
        return (found,)

    def is_crowded(self, anchor: str) -> bool:
        """Tell whether an anchor has more positions than are followed."""
        found = self.positions.get(anchor)
        return isinstance(found, list) and found[0] < 0

    def next_known(self, prompt: str, place: int) -> int:
        """Return the next place that is looked up and has a known anchor, or -1."""
        known = self.positions
        end = len(prompt) - ANCHOR_CHARS + 1
        for start in range(place, end, _BLOCK_CHARS):
            stop = min(start + _BLOCK_CHARS, end)
            if all(
                known.keys().isdisjoint(_END_TO_END.findall(prompt, first, stop + ANCHOR_CHARS - 1))
                for first in range(start, min(start + ANCHOR_CHARS, stop), PROMPT_STEP)
            ):
                continue
            for at in range(start, stop, PROMPT_STEP):
                if prompt[at : at + ANCHOR_CHARS] in known:
                    return at
        return -1


def _add_newest(crowd: list[int], position: int) -> None:
    """Note a position of a crowded anchor, if it is the first in its text."""
    if len(crowd) > 1 and crowd[-1] >> OFFSET_BITS == position >> OFFSET_BITS:
        return
    crowd.append(position)
    if len(crowd) > _NUM_NEWEST + 1:
        del crowd[1]


def _indexed(number: int, text: str) -> Iterator[tuple[list[str], range]]:
    """Yield anchors of a text that are indexed, each list with their positions."""
    base, end = number << OFFSET_BITS, len(text) - ANCHOR_CHARS + 1
    for offset in range(min(SOURCE_RUN, max(end, 0))):
        anchors = _EVERY_PERIOD.findall(text, offset)
        yield anchors, range(base + offset, base + end, PERIOD)
