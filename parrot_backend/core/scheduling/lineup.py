"""Queued requests in line: by their keys alone. Another line-up is in ``fairness.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.orders import OrderKey
from parrot_backend.core.scheduling.sorted_chunks import SortedChunks

Place = tuple[OrderKey, NodeId]


class Lineup(Protocol):
    """Requests by position in serving order."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Place: ...

    def __iter__(self) -> Iterator[Place]: ...

    def insert(self, key: OrderKey, request: Request) -> None:
        """Put in a request that is not there."""
        ...

    def remove(self, key: OrderKey, request: Request) -> None:
        """Take out a request that was put in with this key."""
        ...

    def serve(self, key: OrderKey, request: Request, tokens: float) -> None:
        """Take in that a request, which is about to be taken out, gets so much service."""
        ...

    def settle(self, request: Request, tokens: float | None) -> None:
        """Take in how much service a request had in the end; None if it did not come to that."""
        ...


class SortedLineup:
    """By key. Insertion and removal cost a binary search."""

    def __init__(self) -> None:
        self._sorted = SortedChunks[Place]()

    def __len__(self) -> int:
        return len(self._sorted)

    def __getitem__(self, position: int) -> Place:
        return self._sorted[position]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._sorted)

    def insert(self, key: OrderKey, request: Request) -> None:
        """Put in a request that is not there."""
        self._sorted.add((key, request.id))

    def remove(self, key: OrderKey, request: Request) -> None:
        """Take out a request that was put in with this key."""
        self._sorted.remove((key, request.id))

    def serve(self, key: OrderKey, request: Request, tokens: float) -> None:
        """Nobody shares with others here."""

    def settle(self, request: Request, tokens: float | None) -> None:
        """Nobody shares with others here."""
