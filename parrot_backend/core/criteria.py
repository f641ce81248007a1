"""What users ask of the values they get, and what follows for each request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from parrot_backend.core.ids import TaskGroupId


class CriteriaKind(Enum):
    """The performance criteria of the paper (section 4.1), and that nothing was said.

    Who says nothing is served like who asked for latency, but as many together as fit: the bound on
    tokens that run together trades waiting for time per token, and that is for the user to ask for.
    """

    UNSTATED = "unstated"
    LATENCY = "latency"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class Criteria:
    """What the user wants of one variable.

    Attributes:
        kind: A variable with a target has the kind latency.
        deadline_s: The value is wanted by this time, on the clock of ``now_s``; None for no
            deadline.
        ttft_s: Target for the time to the first token.
        tpot_s: Target for the time per output token.
    """

    kind: CriteriaKind
    deadline_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None

    @property
    def is_latency_sensitive(self) -> bool:
        """True for all but throughput, and for anything with a target."""
        return self.kind is not CriteriaKind.THROUGHPUT or self.is_bounded

    @property
    def is_bounded(self) -> bool:
        """True where latency or a target was asked for: the latency capacity is to be kept."""
        targets = (self.deadline_s, self.ttft_s, self.tpot_s)
        return self.kind is CriteriaKind.LATENCY or any(t is not None for t in targets)


class ObjectiveClass(IntEnum):
    """How the scheduler treats a request; a smaller number is the more urgent one."""

    LATENCY = 0
    TASK_GROUP = 1
    THROUGHPUT = 2


@dataclass(frozen=True, slots=True)
class Objective:
    """What deduction found for one request.

    Attributes:
        objective_class: Latency-sensitive, member of a task group, or throughput-preferred.
        group: The task group, for ``TASK_GROUP`` only.
        deadline_s: Earliest deadline of any output this request leads to.
        tpot_s: Target for the time per token of its own output.
        is_bounded: It runs with others only as far as the engine's latency capacity allows; False
            where somebody waits who has not asked for latency.
        ttft_s: Target for the time from the submit to the first token of its own output.
    """

    objective_class: ObjectiveClass
    group: TaskGroupId | None = None
    deadline_s: float | None = None
    tpot_s: float | None = None
    is_bounded: bool = True
    ttft_s: float | None = None


#: A request that no annotated variable needs: it must not disturb anybody.
UNANNOTATED = Objective(ObjectiveClass.THROUGHPUT)
