"""Planned calls that wait for late-bound values alone, found by the text around those. Pure.

A plan may hold thousands of them, and each call of the program looks for its own: they are kept by
the constant text at the ends of what they say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from parrot_backend.protocol import InputSegment
from parrot_integrations.planning.calls import ModelCall, Segments
from parrot_integrations.planning.rules import rendered
from parrot_integrations.planning.steps import PlannedCall

#: How long the ends of each text are.
_Lengths = tuple[tuple[int, int], ...]
#: The ends of each text.
_Ends = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class WaitingCalls:
    """Calls by what is known of their texts; an entry may be out of date."""

    _frames: dict[tuple[object, ...], dict[_Lengths, dict[_Ends, dict[str, PlannedCall]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    )
    _places: dict[str, tuple[_Lengths, _Ends]] = field(default_factory=dict)

    def add(self, call: PlannedCall, values: Mapping[str, str], missing: Set[str]) -> None:
        """Add a call.

        Args:
            call: The call.
            values: The variables that are known.
            missing: Those that it waits for.

        Raises:
            ValueError: A transform does not apply to a known value.
        """
        ends = tuple(_ends(content, values, missing) for content in call.contents)
        lengths = tuple((len(start), len(end)) for start, end in ends)
        self._frames[call.call.frame][lengths][ends][call.output] = call
        self._places[call.output] = (lengths, ends)

    def remove(self, call: PlannedCall) -> None:
        """Forget a call, if it is here."""
        place = self._places.pop(call.output, None)
        if place is None:
            return
        lengths, ends = place
        by_lengths = self._frames[call.call.frame]
        by_ends = by_lengths[lengths]
        del by_ends[ends][call.output]
        if not by_ends[ends]:
            del by_ends[ends]
        if not by_ends:
            del by_lengths[lengths]

    def candidates(self, call: ModelCall) -> Iterator[PlannedCall]:
        """Yield those that may become a call with concrete texts."""
        for lengths, by_ends in self._frames.get(call.frame, {}).items():
            found = by_ends.get(_cut(call.texts, lengths))
            if found:
                yield from found.values()


def _ends(content: Segments, values: Mapping[str, str], missing: Set[str]) -> tuple[str, str]:
    """Return the text before the first hole and after the last; without holes, all and nothing."""
    holes = [
        i for i, s in enumerate(content) if isinstance(s, InputSegment) and s.variable in missing
    ]
    if not holes:
        return rendered(content, values), ""
    return rendered(content[: holes[0]], values), rendered(content[holes[-1] + 1 :], values)


def _cut(texts: Sequence[str], lengths: _Lengths) -> _Ends:
    return tuple(
        (text[:start], text[len(text) - end :] if end else "")
        for text, (start, end) in zip(texts, lengths, strict=True)
    )
