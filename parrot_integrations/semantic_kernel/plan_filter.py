"""``ParrotPlanFilter``: prompt functions that invoke others run as one graph.

    kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())

Nothing else of a program changes. When a prompt function is invoked, what its template and those
inside will ask is foreseen and sent in one submit; then the invocation runs as ever, and its calls
find their replies under way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from inspect import isasyncgen
from typing import Any, Self

from semantic_kernel import Kernel
from semantic_kernel.filters import FunctionInvocationContext
from semantic_kernel.functions import (
    FunctionResult,
    KernelArguments,
    KernelFunction,
    KernelFunctionFromPrompt,
)

from parrot_integrations.errors import ProgramError
from parrot_integrations.planning.annotations import annotated, parrot_session
from parrot_integrations.planning.plan import Plan
from parrot_integrations.semantic_kernel.filters import (
    FilterRules,
    FilterWarnings,
    FunctionFilters,
    PlanningFilter,
    PromptFilters,
)
from parrot_integrations.semantic_kernel.forecasts import Forecasts
from parrot_integrations.semantic_kernel.foresight import (
    Draft,
    PlanRules,
    begin,
    failed,
    inside,
    planned_at,
    planned_items,
)
from parrot_integrations.semantic_kernel.invocations import (
    Invocation,
    Place,
    at,
    current_place,
    placed,
    within,
)

Next = Callable[[FunctionInvocationContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Step:
    """How an invocation is made.

    Attributes:
        block: It runs in such a block.
        items: Makes of its stream one that is read rightly; None if it is already.
        close: Called at its end, unless it streams.
    """

    block: Callable[[], AbstractContextManager[None]]
    items: Callable[[Any], AsyncGenerator[Any, None]] | None
    close: Callable[[], None] = lambda: None


#: What a planner is invoking: a kernel may have several planners, and one is enough.
_at_work: ContextVar[FunctionInvocationContext | None] = ContextVar(
    "parrot_invocation", default=None
)


class ParrotPlanFilter(PlanningFilter):
    """Plans prompt functions; a function-invocation filter.

    Args:
        strict: Raise ``ProgramError`` with code ``not_planned`` if a step cannot be planned,
            instead of leaving it to the client.
        prompt_filters: What is done about prompt-rendering filters, which decide what is sent:
            ``cut`` plans nothing on a kernel that has some, ``trace`` runs them while a plan is
            made, too, on the prompt with stand-ins for generated texts, ``ignore`` takes them to
            change nothing.
        function_filters: What is done about other function-invocation filters, which may refuse or
            change what is asked: ``cut`` plans nothing on a kernel that has some, ``ignore`` takes
            them to let everything pass as it is. Those with ``@traceable_step`` do not count.

    Raises:
        ValueError: A wish is not known.
    """

    def __init__(
        self,
        *,
        strict: bool = False,
        prompt_filters: PromptFilters = "cut",
        function_filters: FunctionFilters = "cut",
    ) -> None:
        self._rules = PlanRules(strict, FilterRules(prompt_filters, function_filters))
        self._forecasts = Forecasts()
        self._warnings = FilterWarnings()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the filter itself: clones of a kernel share what was learnt."""
        return self

    async def __call__(self, context: FunctionInvocationContext, next: Next) -> None:
        """Invoke a function, planned if it is a prompt function."""
        if _at_work.get() is context:
            # Another planner on the same kernel sees to it.
            await next(context)
            return
        known = _foreseen(context.function)
        step = await self._step(context, known)
        token = _at_work.set(context)
        try:
            # Not in a function of its own: functions nest as deep as Python's stack allows.
            with step.block():
                await next(context)
        except BaseException:
            step.close()
            raise
        finally:
            _at_work.reset(token)
        if step.items and context.result is not None and isasyncgen(context.result.value):
            # It is read when this filter has returned.
            context.result.value = step.items(context.result.value)
        else:
            step.close()
        outermost = context.kernel.function_invocation_filters[-1:]
        if known is not None and any(one is self for _, one in outermost):
            # No other filter can change the result.
            _tell(known, context.result)

    async def _step(self, context: FunctionInvocationContext, known: Invocation | None) -> _Step:
        """Return how an invocation is made."""
        if not isinstance(context.function, KernelFunctionFromPrompt):
            return _native(context.function)
        if known is not None and known.has_planned:
            return _inside(known)
        place = await self._begin(context)
        if place is None:
            return _inside(None)
        return _Step(partial(planned_at, place), partial(planned_items, place), place.plans.close)

    async def _begin(self, context: FunctionInvocationContext) -> Place | None:
        """Make a plan and send it; None if there is none."""
        function = context.function
        key = _key(function)
        if self._forecasts.is_hopeless(key):
            return None
        self._warnings.tell(context.kernel, self._rules.filters)
        name = function.fully_qualified_name
        draft = Draft(context.kernel, self._rules, name)
        try:
            await draft.add(function, context.arguments, is_streaming=context.is_streaming)
            plans = begin([draft], partial(self._forecasts.remember, key, name))
            return None if plans is None else Place(plans, draft.root.take(function))
        except ProgramError:
            raise
        except Exception:  # noqa: BLE001 - a defect of the tracer must not keep it from running
            failed(name)
            return None


async def plan_function(
    kernel: Kernel,
    function: KernelFunction,
    arguments: KernelArguments | None = None,
    *,
    strict: bool = False,
    prompt_filters: PromptFilters = "cut",
    function_filters: FunctionFilters = "cut",
) -> Plan:
    """Return what would be submitted for an invocation, without doing it.

    Its ``report()`` and ``to_mermaid()`` say what is planned, and why other things are not.

    Args:
        kernel: Has the functions, services and filters.
        function: What would be invoked.
        arguments: With what.
        strict: As for ``ParrotPlanFilter``.
        prompt_filters: The same.
        function_filters: The same.

    Raises:
        ProgramError: ``not_planned``, if strict.
    """
    rules = PlanRules(strict, FilterRules(prompt_filters, function_filters))
    draft = Draft(kernel, rules, function.fully_qualified_name)
    given = KernelArguments() if arguments is None else arguments
    await draft.add(function, given)
    return draft.plan()


def _foreseen(function: KernelFunction) -> Invocation | None:
    """Return what is known of an invocation that begins now."""
    place = current_place.get()
    if place is None or place.invocation is None:
        return None
    return place.invocation.take(function)


def _tell(invocation: Invocation, result: FunctionResult | None) -> None:
    place = current_place.get()
    if place is not None:
        place.plans.tell(invocation, result)


def _inside(known: Invocation | None) -> _Step:
    """Go on inside of an invocation."""
    place = inside(known)
    return _Step(partial(at, place), None if place is None else partial(placed, place))


def _native(function: KernelFunction) -> _Step:
    """Invoke a native function; what it invokes itself nobody has foreseen."""
    if current_place.get() is not None or annotated().stage is not None:
        return _inside(None)
    stage = partial(parrot_session, stage=function.fully_qualified_name)
    return _Step(stage, partial(within, stage))


def _key(function: KernelFunction) -> object:
    """Return what tells a function from others; that of ``invoke_prompt`` is new each time."""
    assert isinstance(function, KernelFunctionFromPrompt)
    config = function.prompt_template.prompt_template_config
    return config.template_format, config.template
