"""Plans in force around blocks and streams: never between two items, where the caller runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.plans import Plans

T = TypeVar("T")

#: Makes and sends the plans of a run; None leaves those in force as they are.
Begin = Callable[[], Plans | None]

_END: Any = object()


@contextmanager
def planned_block(begin: Begin) -> Iterator[None]:
    """Have plans in force in a block; at its end what is left of them is given up."""
    plans = begin()
    if plans is None:
        yield
        return
    try:
        with in_force(plans):
            yield
    finally:
        plans.close()


def planned(begin: Begin, items: Iterator[T]) -> Generator[T, None, None]:
    """Yield items, with plans in force while each is made; they begin with the first."""
    plans: Plans | None = None
    try:
        plans = begin()
        while True:
            with in_force(plans or current_plan.get()):
                item = next(items, _END)
            if item is _END:
                return
            yield item
    finally:
        _close(items, plans)


async def aplanned(begin: Begin, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Yield items, with plans in force while each is made; they begin with the first."""
    plans: Plans | None = None
    try:
        plans = begin()
        while True:
            with in_force(plans or current_plan.get()):
                item = await anext(items, _END)
            if item is _END:
                return
            yield item
    finally:
        try:
            if hasattr(items, "aclose"):
                await items.aclose()
        finally:
            if plans is not None:
                plans.close()


def _close(items: Iterator[Any], plans: Plans | None) -> None:
    try:
        if hasattr(items, "close"):
            items.close()
    finally:
        if plans is not None:
            plans.close()
