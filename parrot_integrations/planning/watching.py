"""Collecting the plans that are made, for whoever wants their reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from parrot_integrations.planning.plan import Plan

_watched: ContextVar[list[Plan] | None] = ContextVar("parrot_watched_plans", default=None)


@contextmanager
def watch_plans() -> Iterator[list[Plan]]:
    """Collect the plans that are made in a block, for their reports."""
    plans: list[Plan] = []
    token = _watched.set(plans)
    try:
        yield plans
    finally:
        _watched.reset(token)


def show_to_watchers(plans: Iterable[Plan]) -> None:
    """Tell whoever watches of new plans."""
    watched = _watched.get()
    if watched is not None:
        watched.extend(plans)
