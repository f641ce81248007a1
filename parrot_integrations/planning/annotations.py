"""What the server is told about calls beside the calls: application, session, stage, urgency.

with parrot_session(app="reports", session=user_id):
...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

from parrot_backend.protocol import MAX_NAME_CHARS, Scalar
from parrot_integrations.criteria import LATENCY, THROUGHPUT, UNSTATED, Criteria

#: How urgent a reply is: a word, or targets in seconds.
Perf = Literal["latency", "throughput"] | Criteria

#: The server takes this many labels of a session.
_MAX_LABELS = 64


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a scope or a config says; None says nothing."""

    app: str | None = None
    session: str | None = None
    stage: str | None = None
    perf: Perf | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)

    def over(self, other: Annotation) -> Annotation:
        """Return both together, this one first."""
        return Annotation(
            app=self.app or other.app,
            session=self.session or other.session,
            stage=self.stage or other.stage,
            perf=self.perf or other.perf,
            metadata={**other.metadata, **self.metadata},
        )

    def labels(self) -> dict[str, Scalar]:
        """Return the labels of the session that the server keeps."""
        named = {"session": self.session, "stage": self.stage}
        labels = {key: value for key, value in named.items() if value is not None}
        return dict(list({**labels, **self.metadata}.items())[:_MAX_LABELS])


_scope: ContextVar[Annotation] = ContextVar("parrot_annotation", default=Annotation())  # noqa: B039 - immutable

_default_perf: ContextVar[Perf | None] = ContextVar("parrot_default_perf", default=None)


@contextmanager
def parrot_session(
    *,
    app: str | None = None,
    session: str | None = None,
    stage: str | None = None,
    perf: Perf | None = None,
    metadata: Mapping[str, Scalar] | None = None,
) -> Iterator[None]:
    """Annotate all calls in a block; an inner block adds to and overrides an outer one.

    Args:
        app: Name of the application, for people and for metrics.
        session: What belongs together, for example a conversation.
        stage: Which part of the program this is.
        perf: How urgent the replies are.
        metadata: Further labels.
    """
    inner = Annotation(app, session, stage, perf, dict(metadata or {}))
    token = _scope.set(inner.over(_scope.get()))
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def for_batch() -> Iterator[None]:
    """Take replies in a block for a batch's: nobody waits for one of them alone."""
    token = _default_perf.set("throughput")
    try:
        yield
    finally:
        _default_perf.reset(token)


def default_perf() -> Perf | None:
    """Return the urgency of replies of which nobody says anything; None is unstated."""
    return _default_perf.get()


def annotated() -> Annotation:
    """Return what the ``parrot_session`` blocks around the code say."""
    return _scope.get()


def to_criteria(perf: object) -> Criteria:
    """Return the wire form of an urgency.

    Raises:
        ValueError: Neither a known word nor criteria.
    """
    if perf is None:
        return UNSTATED
    if perf == "latency":
        return LATENCY
    if perf == "throughput":
        return THROUGHPUT
    if isinstance(perf, Criteria):
        return perf
    words = " or ".join(map(repr, get_args(get_args(Perf)[0])))
    raise ValueError(f"perf is {words} or parrot_integrations.Criteria(...), not {perf!r}")


def label(value: object) -> str | None:
    """Return a value as the server takes names: as text, not too long."""
    return None if value is None else str(value)[:MAX_NAME_CHARS]
