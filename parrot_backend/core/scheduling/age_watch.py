"""Which queued requests are old: they have waited for too long, or go with one that has.

A call waits anew when it becomes ready. If age were all, the later calls of a run would stand
behind the first calls of runs that began after it, once those have waited for long enough: in an
overload all runs would go on side by side, and all would end late. So with an old request all are
old that would be served before it if they were, of the same tenant. Two things bound that:

- Work that nobody waits for is old by its own age alone while somebody waits, or it would go
  before who waits as soon as one of its kind had got old. What was old with others is so no longer
  when somebody comes to wait.
- A run has that right for some time after it began. Else others would never be served while one
  goes on for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.lineup import Place
from parrot_backend.core.scheduling.orders import (
    Ordering,
    has_classes,
    old_ordering_of,
    serves_runs,
)
from parrot_backend.core.scheduling.sorted_chunks import SortedChunks

#: So many are old for as long as nobody waits: those served next. To move one there and back takes
#: 14 us, and that is done whenever somebody comes.
_MAX_LENT = 256


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """When requests are old.

    Attributes:
        max_wait_s: What has waited so long is old.
        max_run_s: For so long after it began, a run's requests are old with those of later runs.
        by_tenant: Whether that goes for runs of one tenant only.
    """

    max_wait_s: float
    max_run_s: float
    by_tenant: bool


@dataclass(slots=True, eq=False)
class _Line:
    """Requests of one tenant, in the order that old ones have.

    Attributes:
        old: The old ones.
        lent: Those of them that are old with others for as long as nobody waits.
        young: Those that somebody waits for, and those that nobody does, if they are not old.
        num_awaited: Requests that somebody waits for, old or not.
        num: All of them.
    """

    old: SortedChunks[Place] = field(default_factory=SortedChunks[Place])
    young: tuple[SortedChunks[Place], SortedChunks[Place]] = field(
        default_factory=lambda: (SortedChunks[Place](), SortedChunks[Place]())
    )
    lent: dict[NodeId, Request] = field(default_factory=dict)
    num_awaited: int = 0
    num: int = 0


@dataclass(slots=True, eq=False)
class _Mark:
    """Where a request is.

    Attributes:
        place: In which order.
        is_bulk: Whether nobody waits for it.
        among: Old or young ones of its line; None if it can only become old by its own age.
        is_lent: It is among the old ones with others, though young itself.
    """

    place: Place
    is_bulk: bool
    among: SortedChunks[Place] | None
    is_lent: bool = False


class AgeWatch:
    """The ages of queued requests.

    Args:
        ordering: The order of what is not old. Where it does not serve runs one after the other, a
            request is old by its own age alone.
        limits: When requests are old.
    """

    def __init__(self, ordering: Ordering, limits: AgeLimits) -> None:
        self._order = old_ordering_of(ordering)
        self._with_classes = has_classes(ordering)
        self._follows_runs = serves_runs(ordering)
        self._limits = limits
        # In order of becoming ready, until they are old for good.
        self._young = OrderedDict[NodeId, Request]()  # a dict is slow to find its first key again
        self._marks: dict[NodeId, _Mark] = {}
        self._lines: dict[str, _Line] = {}
        # One that is empty again: with little load each call would make another.
        self._spare: _Line | None = None
        # Lines in which something may have become old with others since they were looked at.
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._marks)

    def add(self, request: Request) -> None:
        """Take in a request that has just been queued."""
        self._young[request.id] = request
        if self._follows_runs:
            self._enter(request)

    def remove(self, request: Request) -> None:
        """Take in that a request leaves the queue."""
        self._young.pop(request.id, None)
        if self._follows_runs:
            self._leave(request)

    def update(self, request: Request) -> None:
        """Take in that something has changed of a queued request."""
        if not self._follows_runs:
            return
        mark = self._marks[request.id]
        place = (self._order(request), request.id)
        if mark.place != place or mark.is_bulk != self._is_bulk(request):
            self._leave(request)
            self._enter(request)

    def is_old(self, request: Request) -> bool:
        """Tell whether a queued request is old."""
        if request.id not in self._young:
            return True
        return self._follows_runs and self._marks[request.id].is_lent

    def reconsider(self, now_s: float) -> list[Request]:
        """Return the requests that have become old since this was asked last, or are so no longer.

        Args:
            now_s: The time.
        """
        changed = list[Request]()
        while self._young:
            request = next(iter(self._young.values()))
            if request.ready_s is None or now_s - request.ready_s < self._limits.max_wait_s:
                break
            if not self.is_old(request):
                changed.append(request)
            self._age(request)
        for name in self._changed:
            line = self._lines.get(name)
            if line is not None:
                self._age_with_old(line, now_s, changed)
        self._changed.clear()
        return changed

    def _age_with_old(self, line: _Line, now_s: float, changed: list[Request]) -> None:
        if line.num_awaited:
            for request in list(line.lent.values()):
                self._leave(request)
                self._enter(request)
                changed.append(request)
        for young in line.young[: 1 if line.num_awaited else 2]:
            while line.old and young and young[0] < line.old.last:
                place = young[0]
                request, mark = self._young[place[1]], self._marks[place[1]]
                if now_s - request.run_began_s >= self._limits.max_run_s:
                    young.remove(place)
                    mark.among = None
                    continue
                if mark.is_bulk and len(line.lent) == _MAX_LENT:
                    break
                changed.append(request)
                if not mark.is_bulk:
                    self._age(request)
                    continue
                young.remove(place)
                line.old.add(place)
                mark.among, mark.is_lent = line.old, True
                line.lent[request.id] = request

    def _age(self, request: Request) -> None:
        del self._young[request.id]
        if self._follows_runs:
            self._leave(request)
            self._enter(request)

    def _is_bulk(self, request: Request) -> bool:
        """Tell whether the order puts it behind all that somebody waits for."""
        is_bulk = request.objective.objective_class is ObjectiveClass.THROUGHPUT
        return self._with_classes and is_bulk

    def _line_of(self, request: Request) -> str:
        return request.tenant if self._limits.by_tenant else ""

    def _enter(self, request: Request) -> None:
        name = self._line_of(request)
        line = self._lines.get(name)
        if line is None:
            line, self._spare = self._spare or _Line(), None
            self._lines[name] = line
        place, is_bulk = (self._order(request), request.id), self._is_bulk(request)
        among = line.young[is_bulk] if request.id in self._young else line.old
        among.add(place)
        self._marks[request.id] = _Mark(place, is_bulk, among)
        line.num += 1
        line.num_awaited += not is_bulk
        if line.old:
            self._changed[name] = None

    def _leave(self, request: Request) -> None:
        name, mark = self._line_of(request), self._marks.pop(request.id)
        line = self._lines[name]
        if mark.among is not None:
            mark.among.remove(mark.place)
        line.lent.pop(request.id, None)
        line.num -= 1
        line.num_awaited -= not mark.is_bulk
        if not line.num:
            self._spare = self._lines.pop(name)
            self._changed.pop(name, None)
        elif line.old:
            self._changed[name] = None
