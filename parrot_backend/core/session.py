"""One session: its graph, what its user asked for, and its place in time."""

from __future__ import annotations

from dataclasses import dataclass, field

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import SessionId, VariableId

Label = str | int | float | bool | None


@dataclass(slots=True, eq=False)
class Session:
    """One run of an application.

    Attributes:
        annotations: What the user wants of which variable, in order of first mention.
        order: Position among all sessions of the server.
        is_closed: Nothing may be added or set any more.
        touched_s: Time of the last event that concerned it.
    """

    id: SessionId
    tenant: str
    app: str
    metadata: tuple[tuple[str, Label], ...]
    order: int
    created_s: float
    touched_s: float
    graph: SessionGraph
    annotations: dict[VariableId, Criteria] = field(default_factory=dict)
    is_closed: bool = False

    def annotate(self, variable: VariableId, criteria: Criteria) -> bool:
        """Record what is wanted of a variable; return whether that changed anything.

        The stronger wish wins whatever the order: latency over throughput, and of each target the
        tighter one.
        """
        before = self.annotations.get(variable)
        after = criteria if before is None else stronger_criteria(before, criteria)
        self.annotations[variable] = after
        return after != before


def stronger_criteria(a: Criteria, b: Criteria) -> Criteria:
    """Return what satisfies both: latency if either says so, and the tighter of each target."""
    is_latency = CriteriaKind.LATENCY in (a.kind, b.kind)
    return Criteria(
        CriteriaKind.LATENCY if is_latency else CriteriaKind.THROUGHPUT,
        _tighter(a.deadline_s, b.deadline_s),
        _tighter(a.ttft_s, b.ttft_s),
        _tighter(a.tpot_s, b.tpot_s),
    )


def _tighter(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
