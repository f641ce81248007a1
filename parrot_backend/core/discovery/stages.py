"""Stages of the runs of one session: calls that hang together by what they read form a run.

Whoever names a session after a user has several runs in it, one after the other or side by side.
A call that reads nothing begins a run; one that reads of several binds these into one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from parrot_backend.core.ids import VariableId

#: How many values keep their place in the graph; a later call that reads an older one begins anew.
_MAX_VALUES = 16_384

#: Stages of a run that are remembered.
_MAX_STAGES = 1024


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
    """

    widths: dict[str, int] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Number of calls."""
        return sum(self.widths.values())

    def shape(self) -> StageShape:
        """Return what later runs can be compared with."""
        return StageShape(tuple(sorted(self.widths)), self.width)

    def take_over(self, other: Stage) -> None:
        """Take in the calls of another stage."""
        for template, width in other.widths.items():
            self.add(template, width)

    def add(self, template: str, number: int = 1) -> None:
        """Take in calls of one kind."""
        self.widths[template] = self.widths.get(template, 0) + number


class Place(NamedTuple):
    """Where a call stands.

    Attributes:
        run: Its run; the number of an older one takes the place of it once both hang together.
        stage: Longest path from a call that reads nothing, in calls.
    """

    run: int
    stage: int


class SessionRuns:
    """The runs of one session, with their stages."""

    def __init__(self) -> None:
        self._stages: dict[int, list[Stage]] = {}
        self._part_of: dict[int, int] = {}
        self._places: OrderedDict[VariableId, Place] = OrderedDict()

    def begin(self, reads: Iterable[VariableId], template: str) -> tuple[Place, int]:
        """Take in a call; return its place, and how many calls came before it in its stage."""
        read = [place for variable in reads if (place := self._places.get(variable)) is not None]
        run = self._joined(sorted({self._root(place.run) for place in read}))
        stages = self._stages[run]
        index = min(max((place.stage for place in read), default=-1) + 1, _MAX_STAGES - 1)
        if index == len(stages):
            stages.append(Stage())
        stage = stages[index]
        num_siblings = stage.width
        stage.add(template)
        return Place(run, index), num_siblings

    def end(self, place: Place, variable: VariableId) -> None:
        """Take in what a call has made."""
        self._places[variable] = place
        if len(self._places) > _MAX_VALUES:
            self._places.popitem(last=False)

    def stages(self, run: int) -> list[Stage]:
        """Return the stages of a run so far; they may still grow."""
        return self._stages[self._root(run)]

    def shapes(self) -> list[tuple[StageShape, ...]]:
        """Return the shapes of all runs, in the order in which they began."""
        return [tuple(stage.shape() for stage in stages) for stages in self._stages.values()]

    def _joined(self, runs: list[int]) -> int:
        """Return the first of some runs, which takes over the others; of none, a new one."""
        if not runs:
            run = len(self._stages) + len(self._part_of)
            self._stages[run] = []
            return run
        first, *others = runs
        stages = self._stages[first]
        for other in others:
            for index, stage in enumerate(self._stages.pop(other)):
                if index == len(stages):
                    stages.append(Stage())
                stages[index].take_over(stage)
            self._part_of[other] = first
        return first

    def _root(self, run: int) -> int:
        while run in self._part_of:
            above = self._part_of[run]
            self._part_of[run] = self._part_of.get(above, above)
            run = above
        return run
