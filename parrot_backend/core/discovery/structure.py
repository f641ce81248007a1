"""The graph that the calls of one session turn out to form: edges, stages, and where to share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from parrot_backend.core.discovery.pieces import Pieces, Reference
from parrot_backend.core.discovery.templates import template_of
from parrot_backend.core.discovery.text_book import MAX_SESSION_CHARS, TextBook
from parrot_backend.core.ids import VariableId

#: How many values keep their place in the graph; a later call that reads an older one begins anew.
_MAX_VALUES = 16_384

#: Stages of a run that are remembered.
_MAX_STAGES = 1024


@dataclass(frozen=True, slots=True)
class FoundCall:
    """What was found out about one call: all that the core records of it.

    Attributes:
        pieces: What each text of its prompt is made of.
        reads: Variables that it reads, in order of first use: its edges.
        stage: Longest path from a call that reads nothing, in calls.
        template: What it has in common with calls of its kind, in other sessions too.
        num_siblings: How many calls came before it in its stage.
    """

    pieces: tuple[Pieces, ...]
    reads: tuple[VariableId, ...]
    stage: int
    template: str
    num_siblings: int

    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Return for each text the offsets inside it at which others may part from it.

        Those are the ends of values and of repeated text, and where they begin: siblings have the
        same ones, whichever of them was first.
        """
        return tuple(tuple(piece.end for piece in pieces[:-1]) for pieces in self.pieces)


class StageShape(NamedTuple):
    """What a stage has in common with that of another run.

    Attributes:
        templates: Kinds of calls, sorted.
        width: Number of calls.
    """

    templates: tuple[str, ...]
    width: int


@dataclass(slots=True)
class Stage:
    """Calls that may run in parallel.

    Attributes:
        widths: Template -> number of calls.
        num_running: Those that have not ended.
    """

    widths: dict[str, int] = field(default_factory=dict)
    num_running: int = 0

    @property
    def width(self) -> int:
        """Number of calls."""
        return sum(self.widths.values())

    def shape(self) -> StageShape:
        """Return what later runs can be compared with."""
        return StageShape(tuple(sorted(self.widths)), self.width)


class RunStructure:
    """What is known of one session without a declared graph.

    Args:
        max_chars: How much text is remembered; see :class:`TextBook`.
    """

    def __init__(self, max_chars: int = MAX_SESSION_CHARS) -> None:
        self._texts = TextBook(max_chars)
        self._stage_of: OrderedDict[VariableId, int] = OrderedDict()
        self.stages: list[Stage] = []

    @property
    def num_chars(self) -> int:
        """How much text is remembered."""
        return self._texts.num_chars

    def shape(self) -> tuple[StageShape, ...]:
        """Return the shapes of the stages so far; the last one may still grow."""
        return tuple(stage.shape() for stage in self.stages)

    def set_input(self, variable: VariableId, value: str) -> None:
        """Take in a value that the client gave: it is read by prompts, and made by no call."""
        self._texts.add_value(variable, value)

    def begin(self, texts: Sequence[str]) -> FoundCall:
        """Take in a call, and return what it reads and where it stands.

        Args:
            texts: The texts of its messages.
        """
        pieces = self._texts.read_call(texts)
        found = (p.variable for text in pieces for p in text if isinstance(p, Reference))
        reads = tuple(dict.fromkeys(found))
        before = max((self._stage_of.get(variable, -1) for variable in reads), default=-1)
        index = min(before + 1, _MAX_STAGES - 1)
        if index == len(self.stages):
            self.stages.append(Stage())
        stage = self.stages[index]
        template = template_of(texts, pieces)
        call = FoundCall(pieces, reads, index, template, stage.width)
        stage.widths[template] = stage.widths.get(template, 0) + 1
        stage.num_running += 1
        return call

    def end(self, call: FoundCall, variable: VariableId | None = None, value: str = "") -> None:
        """Take in that a call has ended.

        Args:
            call: What :meth:`begin` returned.
            variable: What it made; None if it failed.
            value: The value of that.
        """
        self.stages[call.stage].num_running -= 1
        if variable is None:
            return
        self._texts.add_value(variable, value)
        self._stage_of[variable] = call.stage
        if len(self._stage_of) > _MAX_VALUES:
            self._stage_of.popitem(last=False)
