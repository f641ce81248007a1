"""``ParrotPlanFilter``: prompt functions that invoke others run as one graph.

    kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())

Nothing else of a program changes. When a prompt function is invoked, what its template and those
inside will ask is foreseen and sent in one submit; then the invocation runs as ever, and its calls
find their replies under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
from parrot_integrations.semantic_kernel.tracer import PromptFilters

Next = Callable[[FunctionInvocationContext], Awaitable[None]]


class ParrotPlanFilter:
    """Plans prompt functions; a function-invocation filter.

    Args:
        strict: Raise ``ProgramError`` with code ``not_planned`` if a step cannot be planned,
            instead of leaving it to the client.
        prompt_filters: What is done about prompt-rendering filters, which decide what is sent:
            ``cut`` plans nothing on a kernel that has some, ``trace`` runs them while a plan is
            made, too, on the prompt with stand-ins for generated texts, ``ignore`` takes them to
            change nothing.
    """

    def __init__(self, *, strict: bool = False, prompt_filters: PromptFilters = "cut") -> None:
        self._rules = PlanRules(strict, prompt_filters)
        self._forecasts = Forecasts()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the filter itself: clones of a kernel share what was learnt."""
        return self

    async def __call__(self, context: FunctionInvocationContext, next: Next) -> None:
        """Invoke a function, planned if it is a prompt function."""
        known = _foreseen(context.function)
        if not isinstance(context.function, KernelFunctionFromPrompt):
            await _run_native(context, next)
        elif known is not None and known.has_planned:
            await _go_on(context, next, inside(known))
        else:
            await self._plan(context, next)
        outermost = context.kernel.function_invocation_filters[-1:]
        if known is not None and any(one is self for _, one in outermost):
            # No other filter can change the result.
            _tell(known, context.result)

    async def _plan(self, context: FunctionInvocationContext, next: Next) -> None:
        place = await self._begin(context)
        if place is None:
            await _go_on(context, next, inside(None))
            return
        try:
            with planned_at(place):
                await next(context)
        except BaseException:
            place.plans.close()
            raise
        if context.result is not None and isasyncgen(context.result.value):
            # It is read when this filter has returned.
            context.result.value = planned_items(place, context.result.value)
        else:
            place.plans.close()

    async def _begin(self, context: FunctionInvocationContext) -> Place | None:
        """Make a plan and send it; None if there is none."""
        function = context.function
        key = _key(function)
        if self._forecasts.is_hopeless(key):
            return None
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
) -> Plan:
    """Return what would be submitted for an invocation, without doing it.

    Its ``report()`` and ``to_mermaid()`` say what is planned, and why other things are not.

    Args:
        kernel: Has the functions, services and filters.
        function: What would be invoked.
        arguments: With what.
        strict: As for ``ParrotPlanFilter``.
        prompt_filters: The same.

    Raises:
        ProgramError: ``not_planned``, if strict.
    """
    draft = Draft(kernel, PlanRules(strict, prompt_filters), function.fully_qualified_name)
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


async def _go_on(context: FunctionInvocationContext, next: Next, place: Place | None) -> None:
    """Invoke a function, and read its stream, at a place."""
    with at(place):
        await next(context)
    if place is not None and context.result is not None and isasyncgen(context.result.value):
        context.result.value = placed(place, context.result.value)


async def _run_native(context: FunctionInvocationContext, next: Next) -> None:
    """Invoke a native function; what it invokes itself nobody has foreseen."""
    if current_place.get() is not None or annotated().stage is not None:
        await _go_on(context, next, inside(None))
        return
    stage = partial(parrot_session, stage=context.function.fully_qualified_name)
    with stage():
        await next(context)
    if context.result is not None and isasyncgen(context.result.value):
        context.result.value = within(stage, context.result.value)


def _key(function: KernelFunction) -> object:
    """Return what tells a function from others; that of ``invoke_prompt`` is new each time."""
    assert isinstance(function, KernelFunctionFromPrompt)
    config = function.prompt_template.prompt_template_config
    return config.template_format, config.template
