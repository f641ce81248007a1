"""``ParrotPipeline``: functions one after the other, each with the result of the one before.

pipeline = ParrotPipeline([summarise, translate, (headline, "title")])
result = await pipeline.invoke(kernel, KernelArguments(input=text))

All of them are planned as one graph. They run by the kernel's own ``invoke``, with its filters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from copy import copy
from functools import partial
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.functions import FunctionResult, KernelArguments, KernelFunction

from parrot_integrations.errors import ProgramError
from parrot_integrations.planning.plan import Plan
from parrot_integrations.semantic_kernel.filters import (
    FilterRules,
    FilterWarnings,
    FunctionFilters,
    PromptFilters,
)
from parrot_integrations.semantic_kernel.forecasts import Forecasts
from parrot_integrations.semantic_kernel.foresight import (
    Draft,
    PlanRules,
    begin,
    failed,
    planned_at,
    planned_items,
    with_own_calls,
)
from parrot_integrations.semantic_kernel.invocations import Place, at
from parrot_integrations.semantic_kernel.stock import is_prompt

#: A function, perhaps with the name of the argument that its result becomes.
Step = KernelFunction | tuple[KernelFunction, str]


class ParrotPipeline:
    """Functions that run one after the other, planned as one graph.

    Args:
        steps: Prompt functions and native ones; with a name where the result is to become another
            argument than ``output_name``.
        output_name: The argument that the text of each result becomes.
        strict: As for ``ParrotPlanFilter``.
        prompt_filters: The same.
        function_filters: The same.

    Raises:
        ValueError: There are no steps, or a wish is not known.
        TypeError: One of them is no function, or no pair of a function and a name.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        *,
        output_name: str = "input",
        strict: bool = False,
        prompt_filters: PromptFilters = "cut",
        function_filters: FunctionFilters = "cut",
    ) -> None:
        self._steps = [_named(step, output_name) for step in steps]
        if not self._steps:
            raise ValueError("a pipeline has at least one function")
        self._rules = PlanRules(strict, FilterRules(prompt_filters, function_filters))
        self._warnings = FilterWarnings()
        self._forecasts = Forecasts()

    async def plan(self, kernel: Kernel, arguments: KernelArguments | None = None) -> Plan:
        """Return what would be submitted, without doing it.

        Raises:
            ProgramError: ``not_planned``, if strict.
        """
        return (await self._draft(kernel, own_arguments(arguments), is_streaming=False)).plan()

    async def invoke(
        self, kernel: Kernel, arguments: KernelArguments | None = None
    ) -> FunctionResult | None:
        """Return the result of the last function.

        Returns:
            None if one of them was cancelled, as ``Kernel.invoke`` does.
        """
        given = own_arguments(arguments)
        place = await self._begin(kernel, given, is_streaming=False)
        if place is None:
            return await self._run(kernel, given, None)
        try:
            with planned_at(place):
                return await self._run(kernel, given, place)
        finally:
            place.plans.close()

    async def invoke_stream(
        self, kernel: Kernel, arguments: KernelArguments | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield what the last function streams."""
        given = own_arguments(arguments)
        place = await self._begin(kernel, given, is_streaming=True)
        items = self._stream(kernel, given, place)
        async with aclosing(items if place is None else planned_items(place, items)) as stream:
            async for item in stream:
                yield item

    async def _begin(
        self, kernel: Kernel, arguments: KernelArguments, *, is_streaming: bool
    ) -> Place | None:
        if self._forecasts.is_hopeless(None):
            return None
        self._warnings.tell(kernel, self._rules.filters)
        try:
            draft = await self._draft(kernel, arguments, is_streaming=is_streaming)
            plans = begin([draft], partial(self._forecasts.remember, None, "a pipeline"))
        except ProgramError:
            raise
        except Exception:  # noqa: BLE001 - a defect of the tracer must not keep it from running
            failed("a pipeline")
            return None
        return None if plans is None else with_own_calls(plans, draft.root)

    async def _draft(
        self, kernel: Kernel, arguments: KernelArguments, *, is_streaming: bool
    ) -> Draft:
        *first, (last, _) = self._steps
        draft = Draft(kernel, self._rules, last.fully_qualified_name)
        state = arguments
        for function, name in first:
            result = await draft.add(function, state)
            if result is None:
                return draft
            state = with_argument(state, name, str(result))
        await draft.add(last, state, is_streaming=is_streaming)
        return draft

    async def _run(
        self, kernel: Kernel, arguments: KernelArguments, place: Place | None
    ) -> FunctionResult | None:
        state = await self._before_last(kernel, arguments, place)
        return None if state is None else await kernel.invoke(self._steps[-1][0], state)

    async def _stream(
        self, kernel: Kernel, arguments: KernelArguments, place: Place | None
    ) -> AsyncGenerator[Any, None]:
        state = await self._before_last(kernel, arguments, place)
        if state is None:
            return
        async with aclosing(kernel.invoke_stream(self._steps[-1][0], state)) as items:
            async for item in items:
                yield item

    async def _before_last(
        self, kernel: Kernel, arguments: KernelArguments, place: Place | None
    ) -> KernelArguments | None:
        """Run all functions but the last one; return its arguments, None if one was cancelled."""
        state = arguments
        foreseen = list(place.invocation.children) if place and place.invocation else []
        for number, (function, name) in enumerate(self._steps[:-1]):
            child = foreseen[number] if number < len(foreseen) else None
            where = place
            if place is not None and not is_prompt(function):
                # The plan does not speak for what it asks.
                where = Place(place.plans, None)
            with at(where):
                result = await kernel.invoke(function, own_arguments(state))
            if result is None:
                return None
            if place is not None and child is not None:
                place.plans.tell(child, result)
            state = with_argument(state, name, str(result))
        return own_arguments(state)


def _named(step: Any, output_name: str) -> tuple[KernelFunction, str]:
    match step:
        case KernelFunction():
            return step, output_name
        case (KernelFunction() as function, str() as name):
            return function, name
    raise TypeError(f"a step is a function, or a pair of one and a name, not {step!r}")


def own_arguments(arguments: KernelArguments | None) -> KernelArguments:
    """Return a copy for one invocation, which adds defaults and settings to it."""
    if arguments is None:
        return KernelArguments()
    found = copy(arguments)
    if arguments.execution_settings is not None:
        found.execution_settings = dict(arguments.execution_settings)
    return found


def with_argument(arguments: KernelArguments | None, name: str, value: str) -> KernelArguments:
    """Return a copy with another value of an argument."""
    found = own_arguments(arguments)
    found[name] = value
    return found
