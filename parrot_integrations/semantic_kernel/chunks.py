"""A prompt function over the chunks of a text: every chunk's call at once.

summary = await aggregate(kernel, summarise, text_chunks, combine=merge)

The framework's own ``aggregate_chunked_results`` asks for one chunk after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from semantic_kernel import Kernel
from semantic_kernel.exceptions import FunctionExecutionException
from semantic_kernel.functions import FunctionResult, KernelArguments, KernelFunction

from parrot_integrations.errors import ProgramError
from parrot_integrations.planning.annotations import for_batch
from parrot_integrations.planning.context import in_force
from parrot_integrations.planning.plans import MAX_CALLS, MAX_CHARS
from parrot_integrations.semantic_kernel.filters import (
    FilterRules,
    FilterWarnings,
    FunctionFilters,
    PromptFilters,
)
from parrot_integrations.semantic_kernel.foresight import (
    Draft,
    PlanRules,
    begin,
    failed,
    with_own_calls,
)
from parrot_integrations.semantic_kernel.invocations import (
    Invocation,
    KernelPlans,
    Place,
    at,
    current_place,
)
from parrot_integrations.semantic_kernel.pipeline import with_argument
from parrot_integrations.semantic_kernel.stock import is_prompt

_warnings = FilterWarnings()


async def map_chunks(
    kernel: Kernel,
    function: KernelFunction,
    chunks: Sequence[str],
    arguments: KernelArguments | None = None,
    input_name: str = "input",
    *,
    strict: bool = False,
    prompt_filters: PromptFilters = "cut",
    function_filters: FunctionFilters = "cut",
) -> list[FunctionResult]:
    """Return the result of a function for each chunk, in order; all are asked for at once.

    Args:
        kernel: Has the functions, services and filters.
        function: Invoked once for each chunk.
        chunks: Texts.
        arguments: Further arguments.
        input_name: The argument that each chunk is.
        strict: As for ``ParrotPlanFilter``.
        prompt_filters: The same.
        function_filters: The same.

    Raises:
        TypeError: The chunks are one text.
        ProgramError: ``not_planned``, if strict.
        Exception: What the first chunk that fails raises; the others are given up.
    """
    rules = PlanRules(strict, FilterRules(prompt_filters, function_filters))
    run = _Chunks(kernel, function, chunks, arguments, input_name, rules)
    with for_batch(), run.planned(await run.begin()) as places:
        return await run.results(places)


async def aggregate(
    kernel: Kernel,
    function: KernelFunction,
    chunks: Sequence[str],
    arguments: KernelArguments | None = None,
    *,
    separator: str = "\n",
    combine: KernelFunction | None = None,
    input_name: str = "input",
    strict: bool = False,
    prompt_filters: PromptFilters = "cut",
    function_filters: FunctionFilters = "cut",
) -> str:
    """Return the texts for all chunks in one, or what a function makes of that.

    Args:
        kernel: Has the functions, services and filters.
        function: Invoked once for each chunk.
        chunks: Texts.
        arguments: Further arguments.
        separator: Stands between the texts.
        combine: Makes one text of all; it is part of the same plan.
        input_name: The argument that each chunk is, and for ``combine`` the texts in one.
        strict: As for ``ParrotPlanFilter``.
        prompt_filters: The same.
        function_filters: The same.

    Raises:
        TypeError: The chunks are one text.
        ProgramError: ``not_planned``, if strict.
        Exception: What the first chunk that fails raises; the others are given up.
    """
    rules = PlanRules(strict, FilterRules(prompt_filters, function_filters))
    run = _Chunks(kernel, function, chunks, arguments, input_name, rules)
    with for_batch() if combine is None else nullcontext():
        plans = await run.begin(combine, separator)
        with run.planned(plans) as (*places, last):
            text = separator.join(map(str, await run.results(places)))
            return text if combine is None else str(await run.invoke(combine, text, last))


class _Chunks:
    """One run of a function over chunks.

    Args:
        kernel: Has the functions, services and filters.
        function: Invoked once for each chunk.
        chunks: Texts.
        arguments: Further arguments.
        input_name: The argument that each chunk is.
        rules: What is wished of the plans.
    """

    def __init__(
        self,
        kernel: Kernel,
        function: KernelFunction,
        chunks: Sequence[str],
        arguments: KernelArguments | None,
        input_name: str,
        rules: PlanRules,
    ) -> None:
        if isinstance(chunks, str):
            # It would be taken for a list of characters.
            raise TypeError("chunks is a list of texts, not one text")
        self._kernel = kernel
        self._function = function
        self._chunks = list(chunks)
        self._arguments = arguments
        self._input_name = input_name
        self._rules = rules

    async def begin(
        self, combine: KernelFunction | None = None, separator: str = ""
    ) -> tuple[KernelPlans, list[Place]] | None:
        """Plan all invocations; return the place of each, that of ``combine`` at the end."""
        _warnings.tell(self._kernel, self._rules.filters)
        try:
            drafts = await self._drafts(combine, separator)
            plans = begin(drafts)
        except ProgramError:
            raise
        except Exception:  # noqa: BLE001 - a defect of the tracer must not keep it from running
            failed(self._function.fully_qualified_name)
            return None
        if plans is None:
            return None
        foreseen = [child for draft in drafts for child in draft.root.children]
        return plans, [_place_of(one, plans) for one in foreseen]

    @contextmanager
    def planned(
        self, begun: tuple[KernelPlans, list[Place]] | None
    ) -> Iterator[list[Place | None]]:
        """Have plans in force in a block; yield a place for each chunk, and one for after them."""
        nowhere: list[Place | None] = [None] * (len(self._chunks) + 1)
        if begun is None:
            yield nowhere
            return
        plans, places = begun
        try:
            with in_force(plans):
                yield [*places, *nowhere[len(places) :]]
        finally:
            plans.close()

    async def results(self, places: Sequence[Place | None]) -> list[FunctionResult]:
        """Return the result for each chunk, in order.

        Raises:
            Exception: What the first chunk that fails raises; the others are given up.
        """
        tasks = [
            asyncio.create_task(self.invoke(self._function, chunk, place))
            for chunk, place in zip(self._chunks, places, strict=False)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def invoke(
        self, function: KernelFunction, text: str, place: Place | None
    ) -> FunctionResult:
        """Return the result of a function for a text."""
        arguments = with_argument(self._arguments, self._input_name, text)
        with at(place or current_place.get()):
            result = await function.invoke(self._kernel, arguments)
        if result is None:
            raise FunctionExecutionException(f"{function.fully_qualified_name} has no result")
        return result

    async def _drafts(self, combine: KernelFunction | None, separator: str) -> list[Draft]:
        name = (combine or self._function).fully_qualified_name
        drafts = [Draft(self._kernel, self._rules, name)]
        texts: list[str] = []
        num_chars = 0
        for chunk in self._chunks:
            if drafts[-1].num_calls >= MAX_CALLS or num_chars >= MAX_CHARS:
                drafts.append(Draft(self._kernel, self._rules, name))
                num_chars = 0
            num_chars += len(chunk)
            result = await drafts[-1].add(
                self._function, with_argument(self._arguments, self._input_name, chunk)
            )
            if result is None:
                return drafts
            texts.append(str(result))
        if combine is not None and len(drafts) == 1:
            text = separator.join(texts)
            await drafts[0].add(combine, with_argument(self._arguments, self._input_name, text))
        return drafts


def _place_of(invocation: Invocation, plans: KernelPlans) -> Place:
    """Return where the program is when it begins an invocation."""
    if invocation.function is not None and is_prompt(invocation.function):
        return with_own_calls(plans, Invocation(children=[invocation]))
    # The plan does not speak for what a native function asks.
    return Place(plans, None)
