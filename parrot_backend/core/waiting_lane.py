"""The order among waiting requests of one class, deadline and tenant.

The members of a task group go together, as one unit; a request outside of groups is a unit of its
own. Units that have begun go first, then those with the longest path to go, then by arrival.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Generic, Protocol, TypeVar

from parrot_backend.core.request_class import RequestClass

T = TypeVar("T")
V = TypeVar("V")

SortKey = tuple[float, ...]


class Ranked(Protocol):
    """What the order goes by.

    Attributes:
        request_class: What is wanted of the request.
        deadline_s: When it should be done; None for no deadline.
        tenant: Whose it is.
        group: Task group that it belongs to.
        path_length: Longest remaining path after it, in requests.
        prefix_group: Requests with an equal one share a prefix of the prompt.
    """

    @property
    def request_class(self) -> RequestClass: ...  # noqa: D102

    @property
    def deadline_s(self) -> float | None: ...  # noqa: D102

    @property
    def tenant(self) -> str: ...  # noqa: D102

    @property
    def group(self) -> str | None: ...  # noqa: D102

    @property
    def path_length(self) -> int: ...  # noqa: D102

    @property
    def prefix_group(self) -> str | None: ...  # noqa: D102


class SortedValues(Generic[V]):
    """Values in the order of their keys, each of which occurs once.

    Insertion and removal cost a binary search and one move of pointers.
    """

    __slots__ = ("_keys", "_values")

    def __init__(self) -> None:
        self._keys: list[SortKey] = []
        self._values: dict[SortKey, V] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __iter__(self) -> Iterator[V]:
        for key in self._keys:
            yield self._values[key]

    def __contains__(self, key: SortKey) -> bool:
        return key in self._values

    def __getitem__(self, key: SortKey) -> V:
        return self._values[key]

    def items(self) -> Iterator[tuple[SortKey, V]]:
        """Yield keys and values in order."""
        for key in self._keys:
            yield key, self._values[key]

    def first(self) -> tuple[SortKey, V]:
        """Return the least key and its value; there must be one."""
        key = self._keys[0]
        return key, self._values[key]

    def insert(self, key: SortKey, value: V) -> None:
        """Put in a value under a new key."""
        insort(self._keys, key)
        self._values[key] = value

    def remove(self, key: SortKey) -> None:
        """Take out the value of a key that is there."""
        del self._keys[bisect_left(self._keys, key)]
        del self._values[key]


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One waiting request.

    Attributes:
        item: The request itself, which nothing here looks into.
        arrival_s: When it arrived first.
        since_s: Since when it waits.
        order: Position among all that were ever added.
        is_old: It has waited for too long.
    """

    item: T
    hints: Ranked
    arrival_s: float
    since_s: float
    order: int
    is_old: bool = False

    @property
    def place(self) -> SortKey:
        """Sorts by arrival, then by order of adding."""
        return (self.arrival_s, self.order)

    @property
    def age_place(self) -> SortKey:
        """Sorts by the time it has waited."""
        return (self.since_s, self.order)


class _Unit(Generic[T]):
    """What is served together: the members of a task group, or one request that is in none."""

    __slots__ = ("_has_begun", "_path_lengths", "members", "prefix_group")

    def __init__(self, hints: Ranked, *, has_begun: bool) -> None:
        self.members: SortedValues[Entry[T]] = SortedValues()
        self.prefix_group = hints.prefix_group if hints.group is None else None
        self._has_begun = has_begun
        self._path_lengths: list[int] = []  # sorted

    @property
    def rank(self) -> SortKey:
        """Sorts units that have members; no two are equal."""
        return (not self._has_begun, -self._path_lengths[-1], *self.members.first()[0])

    def add(self, entry: Entry[T]) -> None:
        """Put in a member."""
        self.members.insert(entry.place, entry)
        insort(self._path_lengths, entry.hints.path_length)

    def remove(self, entry: Entry[T]) -> None:
        """Take out a member."""
        self.members.remove(entry.place)
        del self._path_lengths[bisect_left(self._path_lengths, entry.hints.path_length)]


class Lane(Generic[T]):
    """Waiting requests of one class, deadline and tenant."""

    __slots__ = ("_prefix_groups", "_ranked", "_units")

    def __init__(self) -> None:
        self._units: dict[str | int, _Unit[T]] = {}
        self._ranked: SortedValues[_Unit[T]] = SortedValues()
        self._prefix_groups: dict[str, SortedValues[_Unit[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._units)

    @property
    def rank(self) -> SortKey:
        """The rank of the first unit; there must be one."""
        return self._ranked.first()[0]

    def add(self, entry: Entry[T], *, has_begun: bool) -> None:
        """Put in a request.

        Args:
            entry: The request.
            has_begun: Whether its task group has begun; the same for all members that are here.
        """
        name = _unit_name(entry)
        unit = self._units.get(name)
        if unit is None:
            unit = self._units[name] = _Unit(entry.hints, has_begun=has_begun)
        else:
            self._withdraw(unit)
        unit.add(entry)
        self._line_up(unit)

    def remove(self, entry: Entry[T]) -> None:
        """Take out a request that is here."""
        name = _unit_name(entry)
        unit = self._units[name]
        self._withdraw(unit)
        unit.remove(entry)
        if unit.members:
            self._line_up(unit)
        else:
            del self._units[name]

    def in_order(self, prefix_group: str | None) -> Iterator[Entry[T]]:
        """Yield the requests in serving order.

        Args:
            prefix_group: Requests of it that belong to no task group lead among equal paths.
        """
        favoured: SortedValues[_Unit[T]] = SortedValues()
        if prefix_group is not None:
            favoured = self._prefix_groups.get(prefix_group, favoured)
        streams = (
            (((*rank[:2], 0.0, *rank[2:]), unit) for rank, unit in favoured.items()),
            (((*rank[:2], 1.0, *rank[2:]), unit) for rank, unit in self._ranked.items()),
        )
        for key, unit in merge(*streams):
            # A favoured unit is in both streams, and its turn in the second comes later.
            if not (favoured and key[2] and unit.prefix_group == prefix_group):
                yield from unit.members

    def _line_up(self, unit: _Unit[T]) -> None:
        self._ranked.insert(unit.rank, unit)
        if unit.prefix_group is not None:
            alike = self._prefix_groups.setdefault(unit.prefix_group, SortedValues())
            alike.insert(unit.rank, unit)

    def _withdraw(self, unit: _Unit[T]) -> None:
        self._ranked.remove(unit.rank)
        if unit.prefix_group is not None:
            alike = self._prefix_groups[unit.prefix_group]
            alike.remove(unit.rank)
            if not alike:
                del self._prefix_groups[unit.prefix_group]


def _unit_name(entry: Entry[T]) -> str | int:
    return entry.order if entry.hints.group is None else entry.hints.group
