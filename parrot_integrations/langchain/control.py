"""Rules of the tracer for lists, choices and repetitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableBranch
from langchain_core.runnables.base import RunnableEachBase
from langchain_core.runnables.router import RouterRunnable

from parrot_integrations.langchain.flow import (
    ListJoiner,
    ListSplitter,
    RepeatUntil,
    TextCondition,
)
from parrot_integrations.langchain.structure import check_limit
from parrot_integrations.langchain.symbolic import (
    GeneratedMessage,
    HostValue,
    SymbolicList,
    generated_message,
)
from parrot_integrations.langchain.tracer import Arrival, Tracer, rule
from parrot_integrations.planning.symbols import CannotPlan, Symbol, SymbolicText


@rule.register
def _each(step: RunnableEachBase, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    value = arrival.value
    if isinstance(value, Sequence) and not isinstance(value, str):
        check_limit(arrival, len(value))
        return [
            tracer.trace(step.bound, Arrival(item, arrival.config, arrival.kwargs))
            for item in value
        ]
    if not isinstance(value, SymbolicList):
        raise CannotPlan("a list of unknown length that Python makes; see split_lines()")
    if arrival.limit() is not None:
        raise CannotPlan("max_concurrency is set, and how long the list is nobody knows")

    def trace_item(item: SymbolicText) -> str:
        inner = Arrival(item, arrival.config, arrival.kwargs)
        return tracer.text(tracer.trace(step.bound, inner))

    return SymbolicList(tracer.builder.map(value.symbol, "map", trace_item))


@rule.register
def _router(step: RouterRunnable, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    value = arrival.value
    if not isinstance(value, Mapping) or tracer.is_symbolic(value.get("key")):
        raise CannotPlan("the key is made on the client")
    if value.get("key") not in step.runnables:
        raise CannotPlan("there is no such key")
    return tracer.trace(step.runnables[value["key"]], arrival.onward(value["input"]))


@rule.register
def _branch(step: RunnableBranch, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    conditions = [c for c, _ in step.branches if isinstance(c, TextCondition)]
    if len(conditions) < len(step.branches):
        raise CannotPlan("a Python condition; see if_contains()")
    ways = [way for _, way in step.branches]
    subjects = [_subject(condition, arrival.value) for condition in conditions]
    if not any(map(tracer.is_symbolic, subjects)):
        for condition, way in zip(conditions, ways, strict=True):
            if condition.holds(arrival.value):
                return tracer.trace(way, arrival)
        return tracer.trace(step.default, arrival)

    are_messages: list[bool] = []

    def tracing(way: Runnable[Any, Any]) -> Callable[[], str]:
        def trace() -> str:
            made = tracer.trace(way, arrival)
            are_messages.append(isinstance(made, GeneratedMessage))
            if are_messages[-1] != are_messages[0] or _is_given_message(made):
                raise CannotPlan(
                    "some of its ways end in messages: add StrOutputParser() after each model"
                )
            return tracer.text(made)

        return trace

    cases = [
        (condition.question, tracer.text(subject), tracing(way))
        for condition, way, subject in zip(conditions, ways, subjects, strict=True)
    ]
    symbol = tracer.builder.branch("branch", cases, tracing(step.default))
    marker = tracer.builder.text_of(symbol)
    return generated_message(marker) if all(are_messages) else marker


@rule.register
def _repeat(step: RepeatUntil, tracer: Tracer, arrival: Arrival) -> Any:
    is_mapping = step.result is not None
    if is_mapping and not isinstance(arrival.value, Mapping):
        raise CannotPlan("its input is no mapping")
    given = arrival.value if is_mapping else {"text": arrival.value}
    state = {key: tracer.text(item) for key, item in given.items()}

    def trace_round(before: dict[str, SymbolicText]) -> dict[str, str]:
        made = tracer.trace(step.body, arrival.onward(before if is_mapping else before["text"]))
        if not is_mapping:
            return {"text": tracer.text(made)}
        if not isinstance(made, Mapping):
            raise CannotPlan("a round returns no mapping")
        return {key: tracer.text(item) for key, item in made.items()}

    asked = (step.until.question, step.until.key or "text")
    result = step.result or "text"
    symbol = tracer.builder.loop("loop", state, trace_round, asked, result, step.max_rounds)
    return tracer.builder.text_of(symbol)


@rule.register
def _split(step: ListSplitter, tracer: Tracer, arrival: Arrival) -> Any:
    symbol = Symbol(tracer.builder.variable_of(tracer.text(arrival.value), "text"))
    return SymbolicList(symbol.then(step.rule, is_list=True))


@rule.register
def _join(step: ListJoiner, tracer: Tracer, arrival: Arrival) -> Any:
    value = arrival.value
    if isinstance(value, SymbolicList):
        return tracer.builder.text_of(value.symbol.then(step.rule))
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise CannotPlan("its input is no list")
    pieces = [step.rule.item.replace("{}", tracer.text(item), 1) for item in value]
    return step.rule.separator.join(pieces)


def _is_given_message(value: Any) -> bool:
    return isinstance(value, BaseMessage) and not isinstance(value, GeneratedMessage)


def _subject(condition: TextCondition, value: Any) -> Any:
    if condition.key is None:
        return value
    if not isinstance(value, Mapping | HostValue):
        raise CannotPlan("the input of a condition is no mapping")
    try:
        return value[condition.key]
    except KeyError as exc:
        raise CannotPlan(f"the input of a condition lacks {condition.key!r}") from exc
