"""Late-bound values: what must have stood in the holes of a template to make a text. Pure.

Between two holes there is known text; a hole ends where that first occurs. If the text can be
read in several ways, any of them makes the same prompt; a wrong one costs a wasted call elsewhere,
and never a wrong answer. Two holes with nothing between them say nothing, and do not match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from parrot_backend.protocol import InputSegment, TextSegment
from parrot_integrations.planning.calls import Segments
from parrot_integrations.planning.rules import transformed, untransformed


def fill_holes(
    contents: Iterable[Segments], texts: Iterable[str], values: Mapping[str, str]
) -> dict[str, str] | None:
    """Return values of the unknown variables with which each content makes its text.

    Args:
        contents: What the texts are made of.
        texts: Concrete texts, one for each content.
        values: The variables that are known.

    Returns:
        None if there are none.
    """
    learnt: dict[str, str] = {}
    for segments, text in zip(contents, texts, strict=True):
        if not _match(segments, text, {**values, **learnt}, learnt):
            return None
    return learnt


def _match(segments: Segments, text: str, values: dict[str, str], learnt: dict[str, str]) -> bool:
    reading = _Reading(text)
    for segment in segments:
        if _is_hole(segment, values):
            if not reading.pass_known(values, learnt, is_last=False):
                return False
            if _is_hole(segment, values):
                # Else it is the same as the hole before.
                assert isinstance(segment, InputSegment), "others are known"
                reading.hole = segment
                continue
        known = _known(segment, values)
        if known is None:
            return False
        reading.known += known
    return reading.pass_known(values, learnt, is_last=True)


@dataclass(slots=True)
class _Reading:
    """How far a text was read.

    Attributes:
        text: The text.
        position: Where the reading is.
        hole: What begins there; None if nothing does.
        known: What comes next, after the hole.
    """

    text: str
    position: int = 0
    hole: InputSegment | None = None
    known: str = ""

    def pass_known(self, values: dict[str, str], learnt: dict[str, str], *, is_last: bool) -> bool:
        """Go on to the end of what is known, and learn what stands in the hole before it."""
        if self.hole is not None and not self.known and not is_last:
            return False
        start = self._find(is_last=is_last)
        if start is None:
            return False
        if self.hole is not None and not _bind(
            self.hole, self.text[self.position : start], values, learnt
        ):
            return False
        self.position, self.hole, self.known = start + len(self.known), None, ""
        return not is_last or self.position == len(self.text)

    def _find(self, *, is_last: bool) -> int | None:
        if self.hole is None:
            return self.position if self.text.startswith(self.known, self.position) else None
        if is_last:
            start = len(self.text) - len(self.known)
            return start if start >= self.position and self.text.endswith(self.known) else None
        start = self.text.find(self.known, self.position)
        return None if start < 0 else start


def _is_hole(segment: TextSegment | InputSegment, values: Mapping[str, str]) -> bool:
    return isinstance(segment, InputSegment) and segment.variable not in values


def _known(segment: TextSegment | InputSegment, values: Mapping[str, str]) -> str | None:
    if isinstance(segment, TextSegment):
        return segment.text
    try:
        return transformed(values[segment.variable], segment.transforms)
    except ValueError:
        return None


def _bind(hole: InputSegment, found: str, values: dict[str, str], learnt: dict[str, str]) -> bool:
    value = untransformed(found, tuple(hole.transforms))
    if value is None:
        return False
    values[hole.variable] = learnt[hole.variable] = value
    return True
