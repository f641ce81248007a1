"""The tracer: goes through a chain with symbolic values and records what its models will be asked.

One rule for each kind of runnable. What has no rule is a step of the client: it is not run, and its
result is late-bound. No code of the user runs here, but formatting of prompts and what was declared
harmless with ``@traceable_step``; no callback hears of it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import singledispatchmethod
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.router import RouterRunnable

from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.declared import is_traceable
from parrot_integrations.langchain.flow import (
    ListJoiner,
    ListSplitter,
    RepeatUntil,
    TextCondition,
    text_of,
)
from parrot_integrations.langchain.inside import calls_models
from parrot_integrations.langchain.llms import ParrotLLM
from parrot_integrations.langchain.model_calls import trace_chat, trace_prompted
from parrot_integrations.langchain.prompts import trace_prompt
from parrot_integrations.langchain.symbolic import (
    GeneratedMessage,
    HostValue,
    SymbolicList,
    is_symbolic,
)
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.symbols import CannotPlan, Symbol, SymbolicText

_NO_KWARGS: Mapping[str, Any] = {}


class Tracer:
    """Traces one or more runs into one plan.

    Args:
        builder: Records the plan.

    Attributes:
        connection: The server of the calls, once there is one.
        covered: Ids of planned runnables inside others that were traced through.
        streams: Whether a model streams whatever the entry point.
    """

    def __init__(self, builder: PlanBuilder) -> None:
        self.builder = builder
        self.connection: Connection | None = None
        self.covered: set[int] = set()
        self.streams = False

    def trace(
        self,
        step: Runnable[Any, Any],
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any] = _NO_KWARGS,
    ) -> Any:
        """Return what a step makes of a value, as far as that can be foreseen.

        Args:
            step: The step.
            value: Its input, which may be symbolic.
            config: In force for the step.
            kwargs: Arguments of its call.
        """
        try:
            return self._rule(step, value, config, kwargs)
        except CannotPlan as exc:
            return self._leave(step, str(exc))

    def host_value(self, where: str, why: str) -> HostValue:
        """Return a value that the client makes."""
        return HostValue(where, why, self.builder.late)

    def _leave(self, step: Runnable[Any, Any], why: str) -> HostValue:
        """Leave a step to the client."""
        name = step.get_name()
        if calls_models(step):
            self.builder.cut(name, why)
        return self.host_value(name, why)

    def _is_symbolic(self, value: Any) -> bool:
        return is_symbolic(value, self.builder.markers)

    # --- rules -------------------------------------------------------------------------------

    @singledispatchmethod
    def _rule(
        self,
        step: Runnable[Any, Any],
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        raise CannotPlan("it runs on the client")

    @_rule.register
    def _sequence(
        self,
        step: RunnableSequence,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        for inner in step.steps:
            value = self.trace(inner, value, config, kwargs)
            kwargs = _NO_KWARGS
        return value

    @_rule.register
    def _parallel(
        self,
        step: RunnableParallel,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        return {key: self.trace(inner, value, config) for key, inner in step.steps__.items()}

    @_rule.register
    def _assign(
        self, step: RunnableAssign, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        if not isinstance(value, Mapping):
            raise CannotPlan("its input is made on the client")
        return {**value, **self.trace(step.mapper, value, config)}

    @_rule.register
    def _pick(
        self, step: RunnablePick, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        if not isinstance(value, Mapping | HostValue):
            raise CannotPlan("its input is no mapping")
        if isinstance(step.keys, str):
            if isinstance(value, HostValue):
                return value[step.keys]
            return value.get(step.keys)
        if isinstance(value, HostValue):
            return {key: value[key] for key in step.keys}
        return {key: value[key] for key in step.keys if key in value}

    @_rule.register
    def _passthrough(
        self,
        step: RunnablePassthrough,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        return value  # a function that it calls has no say in what is passed

    @_rule.register
    def _lambda(
        self,
        step: RunnableLambda,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        function = getattr(step, "func", None)
        if isinstance(function, operator.itemgetter) and isinstance(value, Mapping | HostValue):
            return _looked_up(function, value)
        if function is not None and not kwargs and is_traceable(function):
            result = _called(function, value)
            return self.trace(result, value, config) if isinstance(result, Runnable) else result
        raise CannotPlan("a Python function")

    @_rule.register
    def _each(
        self,
        step: RunnableEachBase,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self.trace(step.bound, item, config, kwargs) for item in value]
        if not isinstance(value, SymbolicList):
            raise CannotPlan("a list of unknown length that Python makes; see split_lines()")

        def trace_item(item: SymbolicText) -> str:
            return self._text(self.trace(step.bound, item, config, kwargs))

        return SymbolicList(self.builder.map(value.symbol, "map", trace_item))

    @_rule.register
    def _binding(
        self,
        step: RunnableBindingBase,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        self.covered.add(id(step))
        merged = merge_configs(step.config, config)
        return self.trace(step.bound, value, merged, {**step.kwargs, **kwargs})

    @_rule.register
    def _history(
        self,
        step: RunnableWithMessageHistory,
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        raise CannotPlan("the history is read on the client")

    @_rule.register
    def _dynamic(
        self,
        step: DynamicRunnable,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        prepared, merged = step.prepare(config)
        return self.trace(prepared, value, merged, kwargs)

    @_rule.register
    def _fallbacks(
        self,
        step: RunnableWithFallbacks,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        return self.trace(step.runnable, value, config, kwargs)  # failures are for the run

    @_rule.register
    def _router(
        self,
        step: RouterRunnable,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        if not isinstance(value, Mapping) or self._is_symbolic(value.get("key")):
            raise CannotPlan("the key is made on the client")
        if value["key"] not in step.runnables:
            raise CannotPlan("there is no such key")
        return self.trace(step.runnables[value["key"]], value["input"], config)

    @_rule.register
    def _branch(
        self,
        step: RunnableBranch,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        conditions = [condition for condition, _ in step.branches]
        if not all(isinstance(condition, TextCondition) for condition in conditions):
            raise CannotPlan("a Python condition; see if_contains()")
        subjects = [_subject(condition, value) for condition in conditions]  # type: ignore[arg-type]
        if not any(map(self._is_symbolic, subjects)):
            for condition, way in step.branches:
                assert isinstance(condition, TextCondition), "checked"
                if condition.holds(value):
                    return self.trace(way, value, config)
            return self.trace(step.default, value, config)

        def tracing(way: Runnable[Any, Any]) -> Any:
            return lambda: self._text(self.trace(way, value, config))

        cases = [
            (condition.question, self._text(subject), tracing(way))  # type: ignore[attr-defined]
            for (condition, way), subject in zip(step.branches, subjects, strict=True)
        ]
        return self.builder.text_of(self.builder.branch("branch", cases, tracing(step.default)))

    @_rule.register
    def _repeat(
        self, step: RepeatUntil, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        is_mapping = step.result is not None
        if is_mapping and not isinstance(value, Mapping):
            raise CannotPlan("its input is no mapping")
        given = value if is_mapping else {"text": value}
        state = {key: self._text(item) for key, item in given.items()}

        def trace_round(before: dict[str, SymbolicText]) -> dict[str, str]:
            entering = before if is_mapping else before["text"]
            made = self.trace(step.body, entering, config)
            if not is_mapping:
                return {"text": self._text(made)}
            if not isinstance(made, Mapping):
                raise CannotPlan("a round returns no mapping")
            return {key: self._text(item) for key, item in made.items()}

        asked = (step.until.question, step.until.key or "text")
        result = step.result or "text"
        symbol = self.builder.loop("loop", state, trace_round, asked, result, step.max_rounds)
        return self.builder.text_of(symbol)

    @_rule.register
    def _split(
        self, step: ListSplitter, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        text = self._text(value)
        symbol = Symbol(self.builder.variable_of(text, "text"))
        return SymbolicList(symbol.then(step.rule, is_list=True))

    @_rule.register
    def _join(
        self, step: ListJoiner, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        if isinstance(value, SymbolicList):
            return self.builder.text_of(value.symbol.then(step.rule))
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise CannotPlan("its input is no list")
        pieces = [step.rule.item.replace("{}", self._text(item), 1) for item in value]
        return step.rule.separator.join(pieces)

    @_rule.register
    def _prompt(
        self,
        step: BasePromptTemplate,  # type: ignore[type-arg]
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any],
    ) -> Any:
        return trace_prompt(step, value, self.builder.markers, self.host_value)

    @_rule.register
    def _str_parser(
        self, step: StrOutputParser, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        return value if isinstance(value, HostValue) else self._text(value)

    @_rule.register
    def _chat_model(
        self, step: ChatParrot, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        self._use(step)
        return trace_chat(self, step, value, kwargs)

    @_rule.register
    def _model(
        self, step: ParrotLLM, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Any:
        self._use(step)
        return trace_prompted(self, step, value, kwargs)

    def _use(self, model: ChatParrot | ParrotLLM) -> None:
        connection = model.connection
        self.streams |= model.streaming
        if self.connection is None:
            self.connection = connection
        own, other = self.connection.settings, connection.settings
        if (own.base_url, own.api_key) != (other.base_url, other.api_key):
            raise CannotPlan("its model is on another server than the first one's")

    def _text(self, value: Any) -> str:
        """Return the text of a value, perhaps with markers."""
        if isinstance(value, GeneratedMessage):
            return value.marker
        if isinstance(value, HostValue):
            return str(value)
        if isinstance(value, SymbolicText):
            return value
        try:
            return text_of(value)
        except TypeError as exc:
            raise CannotPlan(str(exc)) from exc


def _subject(condition: TextCondition, value: Any) -> Any:
    if condition.key is None:
        return value
    if not isinstance(value, Mapping | HostValue):
        raise CannotPlan("the input of a condition is no mapping")
    try:
        return value[condition.key]
    except KeyError as exc:
        raise CannotPlan(f"the input of a condition lacks {condition.key!r}") from exc


def _looked_up(function: operator.itemgetter[Any], value: Any) -> Any:
    try:
        return function(value)
    except (KeyError, IndexError, TypeError) as exc:
        raise CannotPlan(f"{type(exc).__name__}: {exc}") from exc


def _called(function: Any, value: Any) -> Any:
    try:
        return function(value)
    except CannotPlan:
        raise
    except Exception as exc:
        # The user's own function, on a marker; the run will show whether it fails on the value.
        raise CannotPlan(f"{type(exc).__name__}: {exc}") from exc
