"""``as_parrot``: any runnable, planned as a whole, submitted once, and then run as it is.

    chain = as_parrot(summarise.map() | join_list() | combine | llm)
    chain.invoke(documents)

The wrapped runnable itself is what runs: its callbacks, streams, retries, parsers and side effects
are its own. Only its calls of Parrot's models find their replies under way already.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.utils import Input, Output

# LangChain's models look for it, too, to decide whether they stream.
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from parrot_integrations.errors import ProgramError
from parrot_integrations.langchain.annotations import current_annotation, to_criteria
from parrot_integrations.langchain.tracer import Tracer
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.plan import Plan, PlanTerms
from parrot_integrations.planning.plans import Plans

_logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Bounds of one plan; a larger batch is several. The server takes 10,000 nodes and 8 MiB.
_MAX_CALLS, _MAX_CHARS = 1_000, 2 * 2**20

_watched: ContextVar[list[Plan] | None] = ContextVar("parrot_watched_plans", default=None)


@contextmanager
def watch_plans() -> Iterator[list[Plan]]:
    """Collect the plans that are made in a block, for their reports."""
    plans: list[Plan] = []
    token = _watched.set(plans)
    try:
        yield plans
    finally:
        _watched.reset(token)


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
        configs = [self._merge_configs(config)]
        return self._trace([input], configs, kwargs, "latency", streams=False).plans[0]

    # --- entry points ----------------------------------------------------------------------

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """Run it, planned."""
        with self._in_force([input], config, kwargs):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        """Run it, planned."""
        with self._in_force([input], config, kwargs):
            return await super().ainvoke(input, config, **kwargs)

    def stream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """Run it, planned, and yield what its last steps yield."""
        plans = self._start([input], config, kwargs, streams=True)
        return _steps(plans, super().stream(input, config, **kwargs))

    def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """Run it, planned, and yield what its last steps yield."""
        return self._asteps([input], config, kwargs, super().astream(input, config, **kwargs))

    def transform(
        self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """Run it, planned, as a step of a stream: a plan needs the whole input first."""
        chunks = list(input)
        inputs = [_added(chunks)] if chunks else []
        plans = self._start(inputs, config, kwargs, streams=True)
        yield from _steps(plans, super().transform(iter(chunks), config, **kwargs))

    async def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """Run it, planned, as a step of a stream: a plan needs the whole input first."""
        chunks = [chunk async for chunk in input]
        inputs = [_added(chunks)] if chunks else []
        outputs = super().atransform(_again(chunks), config, **kwargs)
        async for output in self._asteps(inputs, config, kwargs, outputs):
            yield output

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Run it for each input; all are planned together, and none waits for another."""
        with self._in_force(inputs, config, kwargs, "throughput"):
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
        with self._in_force(inputs, config, kwargs, "throughput"):
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
        plans = self._start(inputs, config, kwargs, "throughput", streams=False)
        results = Runnable.batch_as_completed(
            self, inputs, config, return_exceptions=return_exceptions, **kwargs
        )
        return _steps(plans, results)

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
        return self._asteps(inputs, config, kwargs, results, "throughput")

    def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Run it, planned, and yield its events.

        With ``version="v3"`` the wrapped runnable's own stream object is returned; it is not
        planned, because nothing tells when it is done with.
        """
        events = super().astream_events(input, config, **kwargs)
        if {**self.kwargs, **kwargs}.get("version") == "v3":
            return events
        given = {key: item for key, item in kwargs.items() if key not in _EVENT_ARGUMENTS}
        return self._asteps([input], config, given, events)

    # --- plans -----------------------------------------------------------------------------

    @contextmanager
    def _in_force(
        self, inputs: Sequence[Any], config: Any, kwargs: Mapping[str, Any], perf: str = "latency"
    ) -> Iterator[None]:
        plans = self._start(inputs, config, kwargs, perf, streams=False)
        if plans is None:
            yield
            return
        try:
            with in_force(plans):
                yield
        finally:
            plans.close()

    def _start(
        self,
        inputs: Sequence[Any],
        config: Any,
        kwargs: Mapping[str, Any],
        perf: str = "latency",
        *,
        streams: bool,
    ) -> Plans | None:
        """Make and submit plans; None if this runnable is part of a plan in force."""
        outer = current_plan.get()
        if isinstance(outer, Plans) and outer.covers(id(self)):
            return None
        configs = [self._merge_configs(one) for one in get_config_list(config, len(inputs))]
        try:
            plans = self._trace(inputs, configs, kwargs, perf, streams=streams)
        except ProgramError:
            raise
        except Exception:
            # A defect of the tracer must not keep the program from running: it runs unplanned.
            _logger.warning("a chain could not be planned", exc_info=True)
            return None
        watched = _watched.get()
        if watched is not None:
            watched.extend(plans.plans)
        plans.start()
        return plans

    def _trace(
        self,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        perf: str,
        *,
        streams: bool,
    ) -> Plans:
        plans = Plans(covered={id(self)}, outer=current_plan.get())
        tracer = Tracer(PlanBuilder())
        chars = 0
        for position, (value, config) in enumerate(zip(inputs, configs, strict=True)):
            tracer.trace(self.bound, value, config, {**self.kwargs, **kwargs})
            chars += _size(value)
            is_full = tracer.builder.num_calls >= _MAX_CALLS or chars >= _MAX_CHARS
            if is_full or position == len(inputs) - 1:
                plans.add(self._plan_of(tracer, config, perf, streams), tracer.covered)
                tracer, chars = Tracer(PlanBuilder()), 0
        return plans

    def _plan_of(self, tracer: Tracer, config: RunnableConfig, perf: str, streams: bool) -> Plan:
        program = tracer.builder.program()
        if self.strict and (program.cuts or program.late):
            note = (*program.cuts, *program.late)[0]
            raise ProgramError(
                "not_planned", f"{note.where} cannot be planned: {note.why} (strict=True)"
            )
        annotation = current_annotation(config.get("metadata") or {})
        terms = PlanTerms(
            app=annotation.app or config.get("run_name") or "",
            metadata=annotation.labels(),
            criteria=to_criteria(annotation.perf or perf),
            tokens=streams or tracer.streams or _is_streamed(config),
        )
        return Plan(program, tracer.connection, terms)

    async def _asteps(
        self,
        inputs: Sequence[Any],
        config: Any,
        kwargs: Mapping[str, Any],
        items: AsyncIterator[T],
        perf: str = "latency",
    ) -> AsyncIterator[T]:
        plans = self._start(inputs, config, kwargs, perf, streams=perf == "latency")
        try:
            while True:
                with in_force(plans or current_plan.get()):
                    item = await anext(items, _END)
                if item is _END:
                    return
                yield item
        finally:
            if hasattr(items, "aclose"):
                await items.aclose()
            if plans is not None:
                plans.close()


def as_parrot(
    runnable: Runnable[Input, Output], *, strict: bool = False
) -> ParrotRunnable[Input, Output]:
    """Return a runnable that does the same, planned as a whole and submitted once.

    Args:
        runnable: Any runnable; what it does is not changed.
        strict: Raise ``ProgramError`` with code ``not_planned`` if a step cannot be planned,
            instead of leaving it to the client.
    """
    return ParrotRunnable(bound=runnable, strict=strict)


_END: Any = object()

_EVENT_ARGUMENTS = frozenset(
    {
        "version",
        "include_names",
        "include_types",
        "include_tags",
        "exclude_names",
        "exclude_types",
        "exclude_tags",
    }
)


def _is_streamed(config: RunnableConfig) -> bool:
    """Tell whether something above reads what models stream, whatever the entry point."""
    callbacks = config.get("callbacks")
    handlers = callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", ())
    return any(isinstance(handler, _StreamingCallbackHandler) for handler in handlers or ())


def _steps(plans: Plans | None, items: Iterator[T]) -> Iterator[T]:
    """Yield items, with the plans in force while each is made, but not in between."""
    try:
        while True:
            with in_force(plans or current_plan.get()):
                item = next(items, _END)
            if item is _END:
                return
            yield item
    finally:
        if hasattr(items, "close"):
            items.close()
        if plans is not None:
            plans.close()


async def _again(chunks: Sequence[T]) -> AsyncIterator[T]:
    for chunk in chunks:
        yield chunk


def _added(chunks: Sequence[Any]) -> Any:
    """Return the sum of chunks; like LangChain, the last one where they do not add up."""
    total = chunks[0]
    for chunk in chunks[1:]:
        try:
            total = total + chunk
        except TypeError:
            total = chunk
    return total


def _size(value: Any) -> int:
    """Return about how many characters there are in an input."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 64
