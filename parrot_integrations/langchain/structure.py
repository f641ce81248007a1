"""Rules of the tracer for what only puts other steps together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import (
    RunnableAssign,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.history import RunnableWithMessageHistory

from parrot_integrations.langchain.symbolic import HostValue
from parrot_integrations.langchain.tracer import Arrival, Tracer, rule
from parrot_integrations.planning.symbols import CannotPlan


@rule.register
def _sequence(step: RunnableSequence, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    for inner in step.steps:
        arrival = arrival.onward(tracer.trace(inner, arrival))
    return arrival.value


@rule.register
def _parallel(step: RunnableParallel, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    check_limit(arrival, len(step.steps__))
    arrival = arrival.onward(arrival.value)
    return {key: tracer.trace(inner, arrival) for key, inner in step.steps__.items()}


@rule.register
def _assign(step: RunnableAssign, tracer: Tracer, arrival: Arrival) -> Any:
    if not isinstance(arrival.value, Mapping):
        raise CannotPlan("its input is made on the client")
    made = tracer.trace(step.mapper, arrival.onward(arrival.value))
    if not isinstance(made, Mapping):
        raise CannotPlan("what it adds is made on the client")
    return {**arrival.value, **made}


@rule.register
def _pick(step: RunnablePick, tracer: Tracer, arrival: Arrival) -> Any:
    value = arrival.value
    if not isinstance(value, Mapping | HostValue):
        raise CannotPlan("its input is no mapping")
    if isinstance(step.keys, str):
        if isinstance(value, HostValue):
            return value[step.keys]
        return value.get(step.keys)
    if isinstance(value, HostValue):
        return {key: value[key] for key in step.keys}
    return {key: value[key] for key in step.keys if key in value}


@rule.register
def _passthrough(step: RunnablePassthrough, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    return arrival.value  # a function that it calls has no say in what is passed


@rule.register
def _binding(step: RunnableBindingBase, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    config = merge_configs(step.config, arrival.config)
    inner = Arrival(arrival.value, config, {**step.kwargs, **arrival.kwargs})
    with tracer.covering(step):
        return tracer.trace(step.bound, inner)


@rule.register
def _history(step: RunnableWithMessageHistory, tracer: Tracer, arrival: Arrival) -> Any:
    raise CannotPlan("the history is read on the client")


@rule.register
def _dynamic(step: DynamicRunnable, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    prepared, config = step.prepare(arrival.config)
    return tracer.trace(prepared, Arrival(arrival.value, config, arrival.kwargs))


@rule.register
def _fallbacks(step: RunnableWithFallbacks, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    return tracer.trace(step.runnable, arrival)  # failures are for the run


def check_limit(arrival: Arrival, number: int) -> None:
    """Make sure that so many things may happen at once.

    Raises:
        CannotPlan: The config allows fewer, and the server would not keep to that.
    """
    limit = arrival.limit()
    if limit is not None and number > limit:
        raise CannotPlan(f"max_concurrency allows {limit} at once")
