"""Recognising values in prompts: which parts of a text are values that the session knows. Pure.

MetaGPT hands texts around as plain strings and joins them into prompts. A value is found again by
its text, as a whole: what was generated, without the white space at its ends, or a part of it that
MetaGPT's own parser cut out. Nothing is put into texts to mark them, because programs look at them:
they parse them as JSON, run them as code, compare and count them.

Longer values are found first, so that a value is not mistaken for another that it contains; of
equal ones the newest is meant. Texts that are too short to tell are left alone, and replacing each
reference by what it stands for always gives the prompt, character by character.
"""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.protocol import InputSegment, StripTransform, TextSegment, WireTransform
from parrot_integrations.planning.calls import Segments

#: Shorter values, white space at the ends aside, are too likely to stand in a prompt by chance, and
#: too short to matter.
MIN_CHARS = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Where a text comes from: a variable, after some transforms."""

    variable: str
    transforms: tuple[WireTransform, ...] = ()

    def then(self, *transforms: WireTransform) -> Source:
        """Return what is left of it after more transforms."""
        return Source(self.variable, (*self.transforms, *transforms))


class KnownTexts:
    """The values of one session by their texts."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        #: Longest first.
        self._texts: list[str] | None = []

    def add(self, text: str, source: Source) -> None:
        """Take in what a source stands for; a text that is known comes from here from now on."""
        self._note(text, source)
        core = text.strip()
        if core != text:
            self._note(core, source.then(StripTransform()))

    def source_of(self, text: str) -> Source | None:
        """Return where a whole text comes from, if it is known."""
        return self._sources.get(text)

    def split(self, text: str) -> Segments:
        """Return a prompt as constant texts and references."""
        pieces: list[str | Source] = [text]
        for known in self._longest_first():
            if len(known) <= len(text) and known in text:
                pieces = [part for piece in pieces for part in self._cut(piece, known)]
        return tuple(
            TextSegment(text=piece)
            if isinstance(piece, str)
            else InputSegment(variable=piece.variable, transforms=piece.transforms)
            for piece in pieces
        )

    def _note(self, text: str, source: Source) -> None:
        if len(text.strip()) < MIN_CHARS:
            return
        if text not in self._sources:
            self._texts = None
        self._sources[text] = source

    def _longest_first(self) -> list[str]:
        if self._texts is None:
            self._texts = sorted(self._sources, key=len, reverse=True)
        return self._texts

    def _cut(self, piece: str | Source, known: str) -> list[str | Source]:
        if not isinstance(piece, str):
            return [piece]
        between = piece.split(known)
        found: list[str | Source] = []
        for number, text in enumerate(between):
            if number:
                found.append(self._sources[known])
            if text:
                found.append(text)
        return found
