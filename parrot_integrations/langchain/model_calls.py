"""Calls of models in a trace: what they will be asked, and what stands for their replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue

from parrot_integrations.langchain.annotations import current_annotation
from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.llms import ParrotLLM
from parrot_integrations.langchain.symbolic import (
    GeneratedMessage,
    HostValue,
    generated_message,
)
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.symbols import CannotPlan, SymbolicText

if TYPE_CHECKING:
    from parrot_integrations.langchain.tracer import Arrival, Tracer


def trace_chat(tracer: Tracer, model: ChatParrot, arrival: Arrival) -> Any:
    """Record a call of a chat model; return the message to come.

    Raises:
        CannotPlan: It is not known what the model will be asked.
    """
    value = arrival.value
    _check_input(model, value)
    tracer.use(model)
    options = dict(arrival.kwargs)
    stop = options.pop("stop", None)
    try:
        messages = model._convert_input(value).to_messages()
        calls = model.to_model_calls(messages, stop, **options)
    except (ValueError, TypeError) as exc:
        raise CannotPlan(str(exc)) from exc
    marker = _record(tracer, model, calls, arrival)
    if calls[0].options.tools:
        # Whether it asks for tools, and what then follows, is known only to the program.
        return tracer.host_value(model.get_name(), "the model may ask for tools")
    return generated_message(marker)


def trace_prompted(tracer: Tracer, model: ParrotLLM, arrival: Arrival) -> Any:
    """Record a call of a completion model; return the text to come.

    Raises:
        CannotPlan: It is not known what the model will be asked.
    """
    value = arrival.value
    _check_input(model, value)
    tracer.use(model)
    options = dict(arrival.kwargs)
    stop = options.pop("stop", None)
    try:
        prompt = value if isinstance(value, str) else model._convert_input(value).to_string()
        calls = model.to_model_calls(prompt, stop, **options)
    except (ValueError, TypeError) as exc:
        raise CannotPlan(str(exc)) from exc
    return _record(tracer, model, calls, arrival)


def _record(
    tracer: Tracer, model: ChatParrot | ParrotLLM, calls: list[ModelCall], arrival: Arrival
) -> SymbolicText:
    label = model.name or "llm"
    stage = current_annotation(arrival.config.get("metadata") or {}).call_stage
    symbols = [tracer.builder.call(call, label, stage) for call in calls]
    return tracer.builder.text_of(symbols[0])


def _check_input(model: ChatParrot | ParrotLLM, value: Any) -> None:
    if isinstance(value, HostValue):
        raise CannotPlan(f"its prompt is made by {value.where}: {value.why}")
    if isinstance(value, GeneratedMessage) or not isinstance(
        value, str | PromptValue | list | tuple
    ):
        raise CannotPlan("its input is neither a prompt nor messages")
    if isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, BaseMessage | tuple | str):
                raise CannotPlan("a message of its prompt is made on the client")
    if _has_cache(model):
        # A reply from the cache would be another text than the one the plan goes on with.
        raise CannotPlan("LangChain's cache of replies is on")
    if isinstance(model, ChatParrot) and model.rate_limiter is not None:
        raise CannotPlan("LangChain's rate limiter is on")


def _has_cache(model: ChatParrot | ParrotLLM) -> bool:
    if isinstance(model.cache, BaseCache):
        return True
    return model.cache is not False and get_llm_cache() is not None
