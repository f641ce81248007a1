"""One session: its graph, what its user asked for, and its place in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId, SessionId, VariableId, WaiterId, name_of
from parrot_backend.core.jobs import Job
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.variable import Variable
from parrot_backend.errors import RequestError

Label = str | int | float | bool | None


@dataclass(slots=True, eq=False)
class Session:
    """One run of an application.

    Attributes:
        annotations: What the user wants of which variable, in order of first mention.
        changed: Nodes that are new, have ended or are wanted otherwise since the last deduction.
        followers: Who is told of instances of a control node, and whether they stream.
        order: Its place among all runs of the server.
        began_s: When it got that place.
        is_run: It is one run of a program, whose calls have its place; see ``ages.py``.
        num_unfinished: Requests that have not ended.
        idle_since_s: Since when there are none; None while there are, and before the first.
        submit_keys: Tenant and idempotency key of each submit that had one.
        num_deduced: Requests that the last deduction went over.
        num_undeduced: Requests that control nodes brought forth since.
        is_closed: Nothing may be added or set any more.
        touched_s: Time of the last event that concerned it.
        quiet: Nobody reads its texts while they are generated; see ``end_quiet``.
        ttl_s: It is forgotten when idle for so long; None takes the configured time.
        jobs: Its runs, by their place in the order.
        attained_tokens: The most service along one path of its calls that have ended.
    """

    id: SessionId
    tenant: str
    app: str
    metadata: tuple[tuple[str, Label], ...]
    order: int
    began_s: float
    created_s: float
    touched_s: float
    graph: SessionGraph
    annotations: dict[VariableId, Criteria] = field(default_factory=dict)
    changed: dict[NodeId, None] = field(default_factory=dict)
    followers: dict[NodeId, dict[WaiterId, bool]] = field(default_factory=dict)
    submit_keys: list[tuple[str, str]] = field(default_factory=list)
    num_deduced: int = 0
    num_undeduced: int = 0
    num_unfinished: int = 0
    idle_since_s: float | None = None
    is_closed: bool = False
    is_run: bool = True
    quiet: bool = False
    ttl_s: float | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    attained_tokens: float = 0.0

    def count_begun(self) -> None:
        """Take in that a request has come."""
        self.num_unfinished += 1
        self.idle_since_s = None

    def count_ended(self, now_s: float) -> None:
        """Take in that a request has ended."""
        self.num_unfinished -= 1
        if not self.num_unfinished:
            self.idle_since_s = now_s

    def end_quiet(self) -> None:
        """Let what begins to run from now on tell its text while it is generated.

        What runs already, or is staged, tells it at its end. A session is never quiet again.
        """
        if not self.quiet:
            return
        self.quiet = False
        for node in self.graph.nodes.values():
            if isinstance(node, Request) and node.state is not NodeState.RUNNING:
                node.quiet = False

    def find(self, variable: VariableId) -> Variable:
        """Return a variable of this session.

        Raises:
            RequestError: ``unknown_variable``.
        """
        found = self.graph.variables.get(variable)
        if found is None:
            raise RequestError("unknown_variable", f"no variable {name_of(variable)!r}")
        return found

    def needed_for_wanted(self, variables: Iterable[Variable]) -> set[VariableId]:
        """Return which of some variables unsettled ones, annotated or waited for, depend on.

        Only what is made of them is looked at.
        """
        made = {variable.id: variable for variable in variables}
        stack = list(made.values())
        while stack:
            for node in self.graph.readers(stack.pop()):
                output = self.graph.variables[node.output]
                if output.id not in made and not output.is_settled:
                    made[output.id] = output
                    stack.append(output)
        needed = set[VariableId]()
        stack = [v for v in made.values() if v.waiters or v.id in self.annotations]
        while stack:
            variable = stack.pop()
            if variable.producer is None or variable.is_settled:
                continue
            for used in self.graph.nodes[variable.producer].reads:
                if used in made and used not in needed:
                    needed.add(used)
                    stack.append(made[used])
        return needed

    def note_settled(self, variable: Variable) -> None:
        """Take in that a variable is settled: it has all that was wished for it."""
        self.annotations.pop(variable.id, None)
        if variable.producer is not None:
            self.changed[variable.producer] = None
            return
        # Control nodes may go on to read something else.
        self.changed.update(dict.fromkeys(node.id for node in self.graph.readers(variable)))

    def withdraw(self, variable: Variable) -> None:
        """Forget what was wished for a variable."""
        self.annotations.pop(variable.id, None)
        self.note_wished(variable)

    def note_wished(self, variable: Variable) -> None:
        """Take in that a variable is wanted otherwise than before, or for something else."""
        if variable.producer is not None:
            self.changed[variable.producer] = None

    def annotate(self, variable: Variable, criteria: Criteria) -> bool:
        """Record what is wanted of an unsettled variable; return whether that changed anything.

        The stronger wish wins whatever the order: latency over throughput, and of each target the
        tighter one.
        """
        if variable.is_settled:
            return False
        before = self.annotations.get(variable.id)
        if before is criteria:
            return False
        after = criteria if before is None else stronger_criteria(before, criteria)
        self.annotations[variable.id] = after
        if after != before:
            self.note_wished(variable)
        return after != before


def app_of(session: Session) -> str:
    """Return what keeps apart what is learnt: the tenant and the application."""
    return f"{len(session.tenant)}:{session.tenant}/{session.app}"


_BY_URGENCY = [CriteriaKind.LATENCY, CriteriaKind.UNSTATED, CriteriaKind.THROUGHPUT]


def stronger_criteria(a: Criteria, b: Criteria) -> Criteria:
    """Return what satisfies both: the more urgent kind, and the tighter of each target."""
    return Criteria(
        min(a.kind, b.kind, key=_BY_URGENCY.index),
        _tighter(a.deadline_s, b.deadline_s),
        _tighter(a.ttft_s, b.ttft_s),
        _tighter(a.tpot_s, b.tpot_s),
    )


def _tighter(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
