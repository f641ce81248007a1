"""A sorted sequence in chunks: inserting moves the pointers of one chunk and not of all behind."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

from parrot_backend.core.ids import NodeId

#: A chunk that grows to twice this is divided. Moving as many pointers takes under a microsecond.
_CHUNK = 512

Item = TypeVar("Item", bound=tuple[tuple[float, ...], NodeId])


class SortedChunks(Generic[Item]):
    """Distinct items in rising order; positions are for its front."""

    def __init__(self) -> None:
        self._chunks: list[list[Item]] = []
        self._last: list[Item] = []
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self._chunks)

    def __getitem__(self, position: int) -> Item:
        for items in self._chunks:
            if position < len(items):
                return items[position]
            position -= len(items)
        raise IndexError(position)

    @property
    def last(self) -> Item:
        """The greatest item; there must be one."""
        return self._last[-1]

    def add(self, item: Item) -> None:
        """Put in an item."""
        self._number += 1
        if not self._chunks:
            self._chunks, self._last = [[item]], [item]
            return
        place = min(bisect_left(self._last, item), len(self._chunks) - 1)
        items = self._chunks[place]
        insort(items, item)
        if len(items) >= 2 * _CHUNK:
            self._chunks[place : place + 1] = [items[:_CHUNK], items[_CHUNK:]]
            self._last[place : place + 1] = [items[_CHUNK - 1], items[-1]]
        else:
            self._last[place] = items[-1]

    def remove(self, item: Item) -> None:
        """Take out an item; one that is not there is a defect of ours."""
        place = bisect_left(self._last, item)
        items = self._chunks[place]
        position = bisect_left(items, item)
        assert items[position] == item
        del items[position]
        self._number -= 1
        if items:
            self._last[place] = items[-1]
        else:
            del self._chunks[place], self._last[place]
