"""``as_parrot``: any runnable, planned as a whole, submitted once, and then run as it is.

    chain = as_parrot(summarise.map() | join_list() | combine | llm)
    chain.invoke(documents)

The wrapped runnable itself is what runs: its callbacks, streams, retries, parsers and side effects
are its own. Only its calls of Parrot's models find their replies under way already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import (
    RunnableBindingBase,
    RunnableLike,
    coerce_to_runnable,
)
from langchain_core.runnables.utils import Input, Output

from parrot_integrations.langchain.foresight import (
    Foresight,
    Run,
)
from parrot_integrations.langchain.streams import (
    added,
    again,
)
from parrot_integrations.planning.annotations import for_batch
from parrot_integrations.planning.context import current_plan
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.plans import Plans
from parrot_integrations.planning.running import Begin, aplanned, planned, planned_block


class ParrotRunnable(RunnableBindingBase[Input, Output]):
    """A runnable that is planned; made by :func:`as_parrot`.

    Attributes:
        strict: A step that cannot be planned is an error.
    """

    strict: bool = False

    def plan(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Plan:
        """Return what would be submitted for an input, without doing it.

        Its ``report()`` and ``to_mermaid()`` say which steps are planned, and why others are not.
        """
        plans = Plans()
        self._foresight().make(self._runs([input], config, kwargs), plans, lambda plan: None)
        return plans.plans[0]

    # --- entry points ----------------------------------------------------------------------

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """Run it, planned."""
        with planned_block(self._begin([input], config, kwargs)):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        """Run it, planned."""
        with planned_block(self._begin([input], config, kwargs)):
            return await super().ainvoke(input, config, **kwargs)

    def stream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """Run it, planned, and yield what its last steps yield."""
        items = super().stream(input, config, **kwargs)
        yield from planned(self._begin([input], config, kwargs, streams=True), items)

    def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """Run it, planned, and yield what its last steps yield."""
        items = super().astream(input, config, **kwargs)
        return aplanned(self._begin([input], config, kwargs, streams=True), items)

    def transform(
        self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """Run it, planned, as a step of a stream: a plan needs the whole input first."""
        if self._is_covered():
            yield from super().transform(input, config, **kwargs)
            return
        chunks = list(input)
        inputs = [added(chunks)] if chunks else []
        begin = self._begin(inputs, config, kwargs, streams=True)
        yield from planned(begin, super().transform(iter(chunks), config, **kwargs))

    async def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """Run it, planned, as a step of a stream: a plan needs the whole input first."""
        if self._is_covered():
            begin: Begin = _nothing
            items = super().atransform(input, config, **kwargs)
        else:
            chunks = [chunk async for chunk in input]
            inputs = [added(chunks)] if chunks else []
            begin = self._begin(inputs, config, kwargs, streams=True)
            items = super().atransform(again(chunks), config, **kwargs)
        async with aclosing(aplanned(begin, items)) as steps:
            async for item in steps:
                yield item

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Run it for each input; all are planned together, and none waits for another."""
        with for_batch(), planned_block(self._begin_batch(inputs, config, kwargs)):
            return Runnable.batch(
                self, inputs, config, return_exceptions=return_exceptions, **kwargs
            )

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Run it for each input; all are planned together, and none waits for another."""
        with for_batch(), planned_block(self._begin_batch(inputs, config, kwargs)):
            return await Runnable.abatch(
                self, inputs, config, return_exceptions=return_exceptions, **kwargs
            )

    def batch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: Literal[True, False] = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Output | Exception]]:
        """Run it for each input, planned together; yield results as they come."""
        results = Runnable.batch_as_completed(
            self, inputs, config, return_exceptions=return_exceptions, **kwargs
        )
        return planned(self._begin_batch(inputs, config, kwargs), results)

    def abatch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: Literal[True, False] = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Output | Exception]]:
        """Run it for each input, planned together; yield results as they come."""
        results = Runnable.abatch_as_completed(
            self, inputs, config, return_exceptions=return_exceptions, **kwargs
        )
        return aplanned(self._begin_batch(inputs, config, kwargs), results)

    def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Run it, planned, and yield its events.

        With ``version="v3"`` the wrapped runnable's own stream object is returned; it is not
        planned, because nothing tells when it is done with.
        """
        events = super().astream_events(input, config, **kwargs)
        if {**self.kwargs, **kwargs}.get("version") == "v3":
            return events
        given = {key: item for key, item in kwargs.items() if key not in _EVENT_ARGUMENTS}
        return aplanned(self._begin([input], config, given, streams=True), events)

    # --- plans -----------------------------------------------------------------------------

    def _begin(
        self,
        inputs: Sequence[Any],
        config: Any,
        kwargs: Mapping[str, Any],
        *,
        streams: bool = False,
    ) -> Begin:
        return lambda: self._foresight(streams=streams).begin(self._runs(inputs, config, kwargs))

    def _begin_batch(self, inputs: Sequence[Any], config: Any, kwargs: Mapping[str, Any]) -> Begin:
        runs = self._runs(inputs, config, kwargs)
        if any((run.config or {}).get("max_concurrency") for run in runs):
            # Each input is planned when its turn comes.
            return _nothing
        return lambda: self._foresight("throughput").begin(runs)

    def _runs(self, inputs: Sequence[Any], config: Any, kwargs: Mapping[str, Any]) -> list[Run]:
        configs = list(config) if isinstance(config, Sequence) else [config] * len(inputs)
        if len(configs) != len(inputs):
            return []  # the run will say so
        merged = {**self.kwargs, **kwargs}
        return [
            Run(value, self._merge_configs(one), merged)
            for value, one in zip(inputs, configs, strict=True)
        ]

    def _foresight(self, perf: str | None = None, *, streams: bool = False) -> Foresight:
        return Foresight(self.bound, id(self), self.strict, perf, streams)

    def _is_covered(self) -> bool:
        outer = current_plan.get()
        return isinstance(outer, Plans) and outer.covers(id(self))


def as_parrot(
    runnable: RunnableLike[Input, Output], *, strict: bool = False
) -> ParrotRunnable[Input, Output]:
    """Return a runnable that does the same, planned as a whole and submitted once.

    Args:
        runnable: Any runnable, or what LangChain makes one of: a mapping, a function. What it
            does is not changed.
        strict: Raise ``ProgramError`` with code ``not_planned`` if a step cannot be planned,
            instead of leaving it to the client.
    """
    bound: Runnable[Any, Any] = coerce_to_runnable(runnable)
    return ParrotRunnable(bound=bound, strict=strict)


#: What ``astream_events`` takes for itself.
_EVENT_ARGUMENTS = frozenset(
    {"version"}
    | {f"{verb}_{what}" for verb in ("include", "exclude") for what in ("names", "types", "tags")}
)


def _nothing() -> None:
    """Begin no plan."""
