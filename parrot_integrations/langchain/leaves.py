"""Rules of the tracer for what does the work: prompts, models, parsers, functions."""

from __future__ import annotations

import asyncio
import inspect
import operator
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.llms import ParrotLLM
from parrot_integrations.langchain.model_calls import trace_chat, trace_prompted
from parrot_integrations.langchain.prompts import trace_prompt
from parrot_integrations.langchain.symbolic import HostValue
from parrot_integrations.langchain.tracer import Arrival, Tracer, rule
from parrot_integrations.planning.declared import is_traceable
from parrot_integrations.planning.symbols import CannotPlan


@rule.register
def _lambda(step: RunnableLambda, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    function, value = getattr(step, "func", None), arrival.value
    if isinstance(function, operator.itemgetter):
        if isinstance(value, Mapping | HostValue | list | tuple):
            return _looked_up(function, value)
        raise CannotPlan("its input is made on the client")
    if function is None or arrival.kwargs or not is_traceable(function):
        raise CannotPlan("a Python function; see traceable_step()")
    result = _called(function, value)
    return tracer.trace(result, arrival) if isinstance(result, Runnable) else result


@rule.register
def _prompt(step: BasePromptTemplate, tracer: Tracer, arrival: Arrival) -> Any:  # type: ignore[type-arg]
    return trace_prompt(step, arrival.value, tracer.builder.markers, tracer.host_value)


@rule.register
def _str_parser(step: StrOutputParser, tracer: Tracer, arrival: Arrival) -> Any:
    return arrival.value if isinstance(arrival.value, HostValue) else tracer.text(arrival.value)


@rule.register
def _chat_model(step: ChatParrot, tracer: Tracer, arrival: Arrival) -> Any:
    return trace_chat(tracer, step, arrival)


@rule.register
def _model(step: ParrotLLM, tracer: Tracer, arrival: Arrival) -> Any:
    return trace_prompted(tracer, step, arrival)


def _looked_up(function: operator.itemgetter[Any], value: Any) -> Any:
    try:
        return function(value)
    except (KeyError, IndexError, TypeError) as exc:
        raise CannotPlan(f"{type(exc).__name__}: {exc}") from exc


def _called(function: Any, value: Any) -> Any:
    result = function(value)
    if asyncio.iscoroutine(result):
        result.close()
        raise CannotPlan("a coroutine")
    if isinstance(result, Iterator) or inspect.isawaitable(result):
        raise CannotPlan("a function whose result comes in pieces")
    return result
