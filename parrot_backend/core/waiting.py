"""The hinted requests that wait for admission, in serving order.

What waited for too long goes first, by arrival. All else goes by

1. class;
2. the earliest deadline, none being the latest;
3. tenant, the one with the least service of this class so far, or else with the foremost unit;
4. task groups that have begun: a member of them was popped or admitted, and the others follow;
5. the longest path to go, which for a task group is the longest of its waiting members;
6. the prefix group of the request admitted last, among requests outside of task groups;
7. arrival, which for a task group is that of its first waiting member, and order of adding.

The members of a task group that agree in class, deadline and tenant are served one after another.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from parrot_backend.core.request_class import RequestClass
from parrot_backend.core.waiting_lane import Entry, Ranked, SortedValues, SortKey
from parrot_backend.core.waiting_tenants import TenantLanes, TenantShares

T = TypeVar("T")

# An engine runs fewer requests at once, so a group with a running member is not forgotten.
_MAX_BEGUN_GROUPS = 4096


@dataclass(frozen=True, slots=True)
class WaitingOptions:
    """Limits of the order.

    Attributes:
        max_wait_s: What waited so long goes before all others, unless it is of class ``FILL``.
    """

    max_wait_s: float = 30.0


class WaitingRequests(Generic[T]):
    """The ordered set of hinted requests that wait.

    Adding, removing and finding the first cost binary searches and moves of pointers. Iteration is
    lazy, and the set must not change meanwhile. Names of task groups must differ between tenants.
    """

    def __init__(self, options: WaitingOptions) -> None:
        self._options = options
        self._entries: dict[T, Entry[T]] = {}
        self._num_added = 0
        self._old: SortedValues[Entry[T]] = SortedValues()
        self._young: SortedValues[Entry[T]] = SortedValues()  # what may become old
        self._levels: SortedValues[TenantLanes[T]] = SortedValues()
        self._groups: dict[str, dict[T, None]] = {}
        self._begun: OrderedDict[str, None] = OrderedDict()
        self._shares = {request_class: TenantShares() for request_class in RequestClass}
        self._last_prefix_group: str | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: object) -> bool:
        return item in self._entries

    def __iter__(self) -> Iterator[T]:
        for entry in self._in_order():
            yield entry.item

    def add(self, item: T, hints: Ranked, arrival_s: float, since_s: float | None = None) -> None:
        """Put in a request; one that is here already is replaced.

        Args:
            item: The request.
            hints: What is known of it.
            arrival_s: When it arrived first, which for a preempted request is long ago.
            since_s: Since when it waits, by which it becomes old; None: since it arrived.
        """
        self.remove(item)
        self._num_added += 1
        since_s = arrival_s if since_s is None else since_s
        entry = self._entries[item] = Entry(item, hints, arrival_s, since_s, self._num_added)
        self._shares[hints.request_class].enter(hints.tenant)
        self._join_group(entry)
        self._put_in_order(entry)

    def remove(self, item: T) -> bool:
        """Take out a request, and tell whether it was here."""
        entry = self._entries.pop(item, None)
        if entry is None:
            return False
        self._take_from_order(entry)
        self._leave(entry)
        return True

    def update(self, item: T, hints: Ranked) -> None:
        """Give a request new hints, and its place accordingly; without effect if it is not here."""
        entry = self._entries.get(item)
        if entry is None:
            return
        self._take_from_order(entry)
        # It enters before it leaves, so that a tenant that stays keeps its account.
        self._shares[hints.request_class].enter(hints.tenant)
        self._leave(entry)
        entry.hints = hints
        entry.is_old &= hints.request_class is not RequestClass.FILL
        self._join_group(entry)
        self._put_in_order(entry)

    def first(self) -> T:
        """Return the request to serve next.

        Raises:
            IndexError: None waits.
        """
        return self._first().item

    def pop(self) -> T:
        """Take out the request to serve next, with which its task group has begun.

        Raises:
            IndexError: None waits.
        """
        entry = self._first()
        self.remove(entry.item)
        # Not only once it is noted as admitted: several may be popped before that.
        self._begin(entry.hints.group)
        return entry.item

    def promote_old(self, now_s: float) -> None:
        """Move what has waited for too long to the front."""
        while self._young:
            _, entry = self._young.first()
            if now_s - entry.since_s < self._options.max_wait_s:
                return
            self._take_from_order(entry)
            entry.is_old = True
            self._put_in_order(entry)

    def note_admitted(self, hints: Ranked, tokens: int) -> None:
        """Account for a request that begins to run.

        Args:
            hints: Its hints; it has been taken out already.
            tokens: The service that its tenant gets thereby.
        """
        self._shares[hints.request_class].serve(hints.tenant, tokens)
        self._last_prefix_group = hints.prefix_group
        self._begin(hints.group)

    def _begin(self, group: str | None) -> None:
        if group is None:
            return
        if group not in self._begun:
            self._set_begun(group, has_begun=True)
        self._begun.move_to_end(group)
        if len(self._begun) > _MAX_BEGUN_GROUPS:
            self._set_begun(next(iter(self._begun)), has_begun=False)

    def _set_begun(self, group: str, *, has_begun: bool) -> None:
        members = [self._entries[item] for item in self._groups.get(group, ())]
        for entry in members:
            self._take_from_order(entry)
        if has_begun:
            self._begun[group] = None
        else:
            del self._begun[group]
        for entry in members:
            self._put_in_order(entry)

    def _first(self) -> Entry[T]:
        entry = next(self._in_order(), None)
        if entry is None:
            raise IndexError("no request waits")
        return entry

    def _in_order(self) -> Iterator[Entry[T]]:
        yield from self._old
        for lanes in self._levels:
            yield from lanes.in_order(self._last_prefix_group)

    def _put_in_order(self, entry: Entry[T]) -> None:
        hints = entry.hints
        if entry.is_old:
            self._old.insert(entry.place, entry)
            return
        if hints.request_class is not RequestClass.FILL:
            self._young.insert(entry.age_place, entry)
        level = _level(hints)
        if level not in self._levels:
            self._levels.insert(level, TenantLanes(self._shares[hints.request_class]))
        self._levels[level].add(entry, has_begun=hints.group in self._begun)

    def _take_from_order(self, entry: Entry[T]) -> None:
        hints = entry.hints
        if entry.is_old:
            self._old.remove(entry.place)
            return
        if hints.request_class is not RequestClass.FILL:
            self._young.remove(entry.age_place)
        level = _level(hints)
        self._levels[level].remove(entry)
        if not self._levels[level]:
            self._levels.remove(level)

    def _join_group(self, entry: Entry[T]) -> None:
        if entry.hints.group is not None:
            self._groups.setdefault(entry.hints.group, {})[entry.item] = None

    def _leave(self, entry: Entry[T]) -> None:
        hints = entry.hints
        self._shares[hints.request_class].leave(hints.tenant)
        if hints.group is not None:
            members = self._groups[hints.group]
            del members[entry.item]
            if not members:
                del self._groups[hints.group]


def _level(hints: Ranked) -> SortKey:
    return (hints.request_class, math.inf if hints.deadline_s is None else hints.deadline_s)
