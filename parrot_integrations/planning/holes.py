"""Late-bound values: what must have stood in the holes of a template to make a text. Pure.

Between two holes there is constant text; a hole ends where that first occurs. If the text can be
read in several ways, any of them makes the same prompt; a wrong one costs a wasted call elsewhere,
and never a wrong answer. Two holes with nothing between them say nothing, and do not match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    position = 0
    hole: InputSegment | None = None
    for place, segment in enumerate(segments):
        if isinstance(segment, InputSegment) and segment.variable not in values:
            if hole is not None:
                return False
            hole = segment
            continue
        known = _known(segment, values)
        if known is None:
            return False
        is_last = place == len(segments) - 1
        start = _find(text, known, position, is_hole_before=hole is not None, is_last=is_last)
        if start is None:
            return False
        if hole is not None:
            if not known or not _bind(hole, text[position:start], values, learnt):
                return False
            hole = None
        position = start + len(known)
    if hole is not None:
        return _bind(hole, text[position:], values, learnt)
    return position == len(text)


def _find(
    text: str, known: str, position: int, *, is_hole_before: bool, is_last: bool
) -> int | None:
    if not is_hole_before:
        return position if text.startswith(known, position) else None
    if is_last:
        start = len(text) - len(known)
        return start if start >= position and text.endswith(known) else None
    start = text.find(known, position)
    return None if start < 0 else start


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
