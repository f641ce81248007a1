"""The graphs that the calls of one session turn out to form: edges, stages, where to share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parrot_backend.core.discovery.pieces import Pieces, Reference
from parrot_backend.core.discovery.stages import Place, SessionRuns, StageShape
from parrot_backend.core.discovery.templates import template_of
from parrot_backend.core.discovery.text_book import MAX_SESSION_CHARS, TextBook
from parrot_backend.core.ids import VariableId


@dataclass(frozen=True, slots=True)
class FoundCall:
    """What was found out about one call: all that the core records of it.

    Attributes:
        pieces: What each text of its prompt is made of.
        reads: Variables that it reads, in order of first use: its edges.
        stage: Longest path from a call that reads nothing, in calls.
        template: What it has in common with calls of its kind, in other sessions too.
        num_siblings: How many calls came before it in its stage.
        run: Which of the session's runs it belongs to.
    """

    pieces: tuple[Pieces, ...]
    reads: tuple[VariableId, ...]
    stage: int
    template: str
    num_siblings: int
    run: int = 0

    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Return for each text the offsets inside it at which others may part from it.

        Those are the ends of values and of repeated text, and where they begin: siblings have the
        same ones, whichever of them was first.
        """
        return tuple(tuple(piece.end for piece in pieces[:-1]) for pieces in self.pieces)


class RunStructure:
    """What is known of one session without a declared graph.

    Args:
        max_chars: How much text is remembered; see :class:`TextBook`.
    """

    def __init__(self, max_chars: int = MAX_SESSION_CHARS) -> None:
        self._texts = TextBook(max_chars)
        self._runs = SessionRuns()

    @property
    def num_chars(self) -> int:
        """How much text is remembered."""
        return self._texts.num_chars

    def shape(self, run: int = 0) -> tuple[StageShape, ...]:
        """Return the shapes of the stages of a run so far; the last one may still grow."""
        return tuple(stage.shape() for stage in self._runs.stages(run))

    def shapes(self) -> list[tuple[StageShape, ...]]:
        """Return the shapes of all runs, in the order in which they began."""
        return self._runs.shapes()

    def set_input(self, variable: VariableId, value: str) -> None:
        """Take in a value that the client gave: it is read by prompts, and made by no call."""
        self._texts.add_value(variable, value)

    def begin(self, texts: Sequence[str], declared: str | None = None) -> FoundCall:
        """Take in a call, and return what it reads and where it stands.

        Args:
            texts: The texts of its messages.
            declared: Which part of the program the client says this is.
        """
        pieces = self._texts.read_call(texts)
        found = (p.variable for text in pieces for p in text if isinstance(p, Reference))
        reads = tuple(dict.fromkeys(found))
        template = template_of(texts, pieces, declared)
        place, num_siblings = self._runs.begin(reads, template)
        return FoundCall(pieces, reads, place.stage, template, num_siblings, place.run)

    def end(self, call: FoundCall, variable: VariableId | None = None, value: str = "") -> None:
        """Take in that a call has ended.

        Args:
            call: What :meth:`begin` returned.
            variable: What it made; None if it failed.
            value: The value of that.
        """
        if variable is not None:
            self._texts.add_value(variable, value)
            self._runs.end(Place(call.run, call.stage), variable)
