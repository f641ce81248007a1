"""The tracer: goes through a chain with symbolic values and records what its models will be asked.

There is one rule for each kind of runnable, in ``structure``, ``control`` and ``leaves``. What has
no rule is a step of the client: it is not run, and its result is late-bound. No code of the user
runs here but what was declared harmless with ``@traceable_step``; no callback hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, singledispatch
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.flow import text_of
from parrot_integrations.langchain.inside import calls_models
from parrot_integrations.langchain.llms import ParrotLLM
from parrot_integrations.langchain.symbolic import GeneratedMessage, HostValue, is_symbolic
from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.symbols import CannotPlan, SymbolicText

_logger = logging.getLogger(__name__)

#: Packages whose classes do what the rules say.
_KNOWN_PACKAGES = frozenset({"langchain_core", "parrot_integrations"})
#: A class elsewhere that has one of these of its own does something else.
_BEHAVIOUR = frozenset(
    """
    invoke ainvoke stream astream transform atransform batch abatch parse aparse parse_result
    aparse_result format aformat format_prompt aformat_prompt format_messages aformat_messages
    generate agenerate _generate _agenerate _stream _astream _invoke _ainvoke _transform
    _atransform _convert_input to_model_calls prepare
    """.split()  # noqa: SIM905 - shorter so
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes to a step.

    Attributes:
        value: Its input, which may be symbolic.
        config: In force for the step.
        kwargs: Arguments of its call.
    """

    value: Any
    config: RunnableConfig
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def onward(self, value: Any) -> Arrival:
        """Return what comes to another step under the same config."""
        return Arrival(value, self.config)

    def limit(self) -> int | None:
        """Return how many things may happen at once; None if the config does not say."""
        return self.config.get("max_concurrency")


class Tracer:
    """Traces one or more runs into one plan.

    Args:
        builder: Records the plan.

    Attributes:
        builder: As given.
        model: The first model that is called, once there is one.
        covered: Ids of planned runnables inside others that were traced through.
        streams: Whether a model streams whatever the entry point.
    """

    def __init__(self, builder: PlanBuilder) -> None:
        self.builder = builder
        self.model: ChatParrot | ParrotLLM | None = None
        self.covered: set[int] = set()
        self.streams = False
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection | None:
        """The server of the calls, once there is one."""
        return self._connection

    def trace(self, step: Runnable[Any, Any], arrival: Arrival) -> Any:
        """Return what a step makes of what comes to it, as far as that can be foreseen."""
        try:
            if _is_foreign(type(step)):
                raise CannotPlan("its class says itself what it does")
            return rule(step, self, arrival)
        except CannotPlan as exc:
            return self._leave(step, str(exc))
        except Exception as exc:
            # Whatever the framework's code says of a marker; if it fails of the values themselves
            # too, the run will tell.
            _logger.debug("a step could not be traced", exc_info=True)
            return self._leave(step, f"{type(exc).__name__}: {str(exc)[:120]}")

    def host_value(self, where: str, why: str) -> HostValue:
        """Return a value that the client makes."""
        return HostValue(where, why, self.builder.late)

    def is_symbolic(self, value: Any) -> bool:
        """Tell whether anything in a value is known only later."""
        return is_symbolic(value, self.builder.markers)

    def text(self, value: Any) -> str:
        """Return the text of a value, perhaps with markers.

        Raises:
            CannotPlan: It is no text.
        """
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

    def use(self, model: ChatParrot | ParrotLLM) -> None:
        """Note that a model is called.

        Raises:
            CannotPlan: It is on another server than those before.
        """
        self.streams |= model.streaming
        if self._connection is None:
            self.model, self._connection = model, model.connection
            return
        if not self._connection.settings.is_same_server(model.connection.settings):
            raise CannotPlan("its model is on another server than the first one's")

    @contextmanager
    def covering(self, step: Runnable[Any, Any]) -> Iterator[None]:
        """Trace something inside; it makes no plan of its own then, unless it was left whole."""
        num_calls, num_cuts = self.builder.num_calls, self.builder.num_cuts
        yield
        if self.builder.num_calls > num_calls or self.builder.num_cuts == num_cuts:
            self.covered.add(id(step))

    def _leave(self, step: Runnable[Any, Any], why: str) -> HostValue:
        """Leave a step to the client."""
        name = step.get_name()
        if calls_models(step):
            self.builder.cut(name, why)
        return self.host_value(name, why)


@singledispatch
def rule(step: Runnable[Any, Any], tracer: Tracer, arrival: Arrival) -> Any:
    """Return what a step of one kind makes of what comes to it.

    Raises:
        CannotPlan: That cannot be foreseen.
    """
    raise CannotPlan("it runs on the client")


@lru_cache(maxsize=1024)
def _is_foreign(kind: type) -> bool:
    """Tell whether a class changes what the framework's class that it is derived from does."""
    for one in kind.__mro__:
        if one.__module__.partition(".")[0] in _KNOWN_PACKAGES:
            return False
        if not _BEHAVIOUR.isdisjoint(vars(one)):
            return True
    return True
