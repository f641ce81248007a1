"""Plans for runs of a runnable: made from the inputs, and sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config

# LangChain's models look for it, too, to decide whether they stream.
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from parrot_integrations.errors import ProgramError

# The rules are registered when their modules are imported.
from parrot_integrations.langchain import control, leaves, structure  # noqa: F401
from parrot_integrations.langchain.annotations import current_annotation
from parrot_integrations.langchain.tracer import Arrival, Tracer
from parrot_integrations.planning.annotations import default_perf, to_criteria
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.context import current_plan
from parrot_integrations.planning.plan import Plan, PlanTerms, require_whole
from parrot_integrations.planning.plans import MAX_CALLS, MAX_CHARS, Plans
from parrot_integrations.planning.watching import show_to_watchers

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """One run that is about to begin.

    Attributes:
        value: Its input.
        config: As it was given.
        kwargs: Arguments of the call.
    """

    value: Any
    config: RunnableConfig | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Foresight:
    """Makes plans for runs of one runnable.

    Attributes:
        runnable: What runs.
        owner: Id of the planned runnable around it.
        strict: A step that cannot be planned is an error.
        perf: How urgent the results are if nobody says anything; None depends on the caller.
        streams: Whether the entry point streams.
    """

    runnable: Runnable[Any, Any]
    owner: int
    strict: bool = False
    perf: str | None = None
    streams: bool = False

    def begin(self, runs: Sequence[Run]) -> Plans | None:
        """Make plans and send them; None if there is nothing to plan.

        Raises:
            ProgramError: ``not_planned``, if strict.
        """
        outer = current_plan.get()
        if not runs or (isinstance(outer, Plans) and outer.covers(self.owner)):
            return None
        plans = Plans(covered={self.owner}, outer=outer)
        try:
            self.make(runs, plans, lambda plan: plan.start())
        except BaseException as exc:
            plans.close()
            if isinstance(exc, ProgramError) or not isinstance(exc, Exception):
                raise
            # A defect of the tracer must not keep the program from running: it runs unplanned.
            _logger.warning("a chain could not be planned", exc_info=True)
            return None
        show_to_watchers(plans.plans)
        return plans

    def make(self, runs: Sequence[Run], plans: Plans, made: Callable[[Plan], None]) -> None:
        """Make plans of bounded size; ``made`` is told of each at once."""
        tracer, chars = Tracer(PlanBuilder()), 0
        for position, run in enumerate(runs):
            config = ensure_config(run.config)
            tracer.trace(self.runnable, Arrival(run.value, config, run.kwargs))
            chars += _size(run.value)
            is_full = tracer.builder.num_calls >= MAX_CALLS or chars >= MAX_CHARS
            if is_full or position == len(runs) - 1:
                plan = self._plan(tracer, config)
                plans.add(plan, tracer.covered)
                made(plan)
                tracer, chars = Tracer(PlanBuilder()), 0

    def _plan(self, tracer: Tracer, config: RunnableConfig) -> Plan:
        program = tracer.builder.program()
        if self.strict:
            require_whole(program)
        annotation = current_annotation(config.get("metadata") or {})
        model = tracer.model
        perf = annotation.perf or (model and model.perf) or self.perf or default_perf()
        terms = PlanTerms(
            app=annotation.app or (model and model.app) or config.get("run_name") or "",
            metadata=annotation.labels(),
            criteria=to_criteria(perf),
            tokens=self.streams or tracer.streams or _is_streamed(config),
        )
        return Plan(program, tracer.connection, terms)


def _is_streamed(config: RunnableConfig) -> bool:
    """Tell whether something above reads what models stream, whatever the entry point."""
    callbacks = config.get("callbacks")
    handlers = callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", ())
    return any(isinstance(handler, _StreamingCallbackHandler) for handler in handlers or ())


def _size(value: Any) -> int:
    """Return about how many characters there are in an input."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 64
