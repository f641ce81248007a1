"""Drafts of plans for invocations that are about to begin, and how they are put in force."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import finalize

from semantic_kernel import Kernel
from semantic_kernel.functions import KernelArguments, KernelFunction

from parrot_integrations.planning.annotations import (
    annotated,
    default_perf,
    label,
    to_criteria,
)
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.plan import Plan, PlanTerms, require_whole
from parrot_integrations.planning.running import aplanned
from parrot_integrations.planning.submits import Terms
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.planning.watching import show_to_watchers
from parrot_integrations.semantic_kernel.copies import copied
from parrot_integrations.semantic_kernel.filters import FilterRules
from parrot_integrations.semantic_kernel.invocations import (
    Invocation,
    KernelPlans,
    Place,
    at,
    current_place,
    placed,
)
from parrot_integrations.semantic_kernel.symbolic import TracedResult
from parrot_integrations.semantic_kernel.tracer import Tracer, TraceTooLarge

T = TypeVar("T")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanRules:
    """What is wished of plans.

    Attributes:
        strict: A step that cannot be planned is an error.
        filters: What is done about filters of the user.
    """

    strict: bool = False
    filters: FilterRules = field(default_factory=FilterRules)


class Draft:
    """A plan in the making.

    Args:
        kernel: Has the functions, services and filters.
        rules: What is wished.
        name: What people call the program if they say nothing themselves.
    """

    def __init__(self, kernel: Kernel, rules: PlanRules, name: str) -> None:
        self.tracer = Tracer(kernel, PlanBuilder(), rules.filters)
        self._rules = rules
        self._name = name
        self._is_streaming = False
        self._is_too_large = False
        self._known: dict[int, Any] = {}

    @property
    def num_calls(self) -> int:
        """How many calls there are; none if they cannot be planned together."""
        return 0 if self._is_too_large else self.tracer.builder.num_calls

    @property
    def root(self) -> Invocation:
        """Has the invocations that were added, in order."""
        return self.tracer.root

    async def add(
        self, function: KernelFunction, arguments: KernelArguments, *, is_streaming: bool = False
    ) -> TracedResult | None:
        """Add an invocation; return what stands for its result, None if nothing can be said."""
        self._is_streaming |= is_streaming
        try:
            given = copied(arguments, self._known)
            return await self.tracer.trace(function, given, is_streaming=is_streaming)
        except (CannotPlan, TraceTooLarge) as exc:
            self._is_too_large |= isinstance(exc, TraceTooLarge)
            self.tracer.builder.cut(function.fully_qualified_name, str(exc))
            return None

    def plan(self) -> Plan:
        """Return the plan, which is not sent yet.

        Raises:
            ProgramError: ``not_planned``, if strict.
        """
        program = self.tracer.builder.program()
        if self._rules.strict:
            require_whole(program)
        told = annotated()
        own = self.tracer.terms or Terms(
            metadata=told.labels(), criteria=to_criteria(told.perf or default_perf())
        )
        terms = PlanTerms(
            app=own.app or label(told.app) or label(self._name) or "",
            metadata=own.metadata,
            criteria=own.criteria,
            tokens=self._is_streaming,
        )
        return Plan(program, self.tracer.connection, terms)


def begin(
    drafts: Sequence[Draft], on_close: Callable[[KernelPlans], None] | None = None
) -> KernelPlans | None:
    """Send the plans of drafts; None if they would gain nothing.

    Raises:
        ProgramError: ``not_planned``, if strict.
    """
    made = [draft.plan() for draft in drafts]
    is_worth_it = sum(draft.num_calls for draft in drafts) > 1
    show_to_watchers(plan for plan in made if is_worth_it or plan.program.cuts)
    if not is_worth_it:
        return None
    plans = KernelPlans(plans=made, outer=current_plan.get(), on_close=on_close)
    try:
        plans.start()
    except BaseException:
        plans.close()
        raise
    return plans


@contextmanager
def planned_at(place: Place) -> Iterator[None]:
    """Have the plans of a place in force in a block."""
    with in_force(place.plans), at(place):
        yield


def planned_items(place: Place, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Return items, with plans in force while each is made; at the end they are given up."""
    stream = aplanned(lambda: place.plans, placed(place, items))
    # Whoever drops it without a look at its first item does not close it.
    finalize(stream, place.plans.close).atexit = False
    return stream


def with_own_calls(plans: KernelPlans, root: Invocation) -> Place:
    """Return the place outside of functions that may run without ``ParrotPlanFilter``.

    Nobody tells then which of them makes a call: as long as all that they do was foreseen, each
    call is one of theirs.
    """
    if root.is_whole_inside:
        root.num_calls = root.total_calls
    return Place(plans, root)


def inside(invocation: Invocation | None) -> Place | None:
    """Return the place within an invocation, from where the program is."""
    place = current_place.get()
    return None if place is None else Place(place.plans, invocation)


def failed(what: str) -> None:
    """Log that something was not planned because of a defect; call it in an ``except`` block."""
    _logger.warning("%s could not be planned", what, exc_info=True)
