"""Several plans in force at once: those of a batch that is too large for one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.context import PlanInForce
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.settings import ClientSettings

#: Bounds of one plan; what is larger is several. The server takes 10,000 nodes and 8 MiB.
MAX_CALLS, MAX_CHARS = 1_000, 2 * 2**20


@dataclass(slots=True)
class Plans:
    """Plans of one run; see ``context.PlanInForce``.

    Attributes:
        plans: In order.
        covered: Ids of objects of the framework that the plans cover.
        outer: What was in force before; asked for what is in none of these.
    """

    plans: list[Plan] = field(default_factory=list)
    covered: set[int] = field(default_factory=set)
    outer: PlanInForce | None = None

    def add(self, plan: Plan, covered: Iterable[int]) -> None:
        """Add a plan."""
        self.plans.append(plan)
        self.covered.update(covered)

    def covers(self, identity: int) -> bool:
        """Tell whether an object of the framework was planned as part of something larger."""
        return identity in self.covered

    def start(self) -> None:
        """Send what can be sent."""
        for plan in self.plans:
            plan.start()

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply of the planned call that is exactly this one; None if there is none."""
        for plan in self.plans:
            reply = plan.claim(call, endpoint=endpoint, direct=direct)
            if reply is not None:
                return reply
        if self.plans:
            self.plans[0].miss()
        if self.outer is None:
            return None
        return self.outer.claim(call, endpoint=endpoint, direct=direct)

    def close(self) -> None:
        """Give up what is unfinished."""
        for plan in self.plans:
            plan.close()
