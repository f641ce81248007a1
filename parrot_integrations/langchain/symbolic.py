"""Values that a trace passes from step to step where a run would pass real ones.

A value is *symbolic* if anything in it is known only later: a text with a marker, a list to come,
a generated message, or what a step of the client makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompt_values import PromptValue

from parrot_integrations.planning.symbols import CannotPlan, Markers, Symbol, SymbolicText


class GeneratedMessage(AIMessage):
    """The message of a planned call. Its text may be used, the message itself not be printed."""

    def __format__(self, spec: str) -> str:
        """Refuse: a message in a text is its representation, with ids and token counts."""
        raise CannotPlan("a message is put into a text: add StrOutputParser() after the model")

    def __str__(self) -> str:
        """Refuse, as for formatting."""
        return self.__format__("")

    __repr__ = __str__

    @property
    def marker(self) -> SymbolicText:
        """Its text."""
        assert isinstance(self.content, SymbolicText), "made so"
        return self.content


def generated_message(marker: SymbolicText) -> GeneratedMessage:
    """Return the message of a planned call; validation would copy the marker and disarm it."""
    # To look the defaults up takes longer than all else that is done for a call.
    return GeneratedMessage.model_construct(
        content=marker,
        additional_kwargs={},
        response_metadata={},
        tool_calls=[],
        invalid_tool_calls=[],
    )


class _Closed:
    """Refuses whatever would need the value."""

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise CannotPlan("a step looks into a value that is known only later")

    __iter__ = __len__ = __bool__ = __contains__ = __eq__ = __ne__ = __lt__ = _refuse
    __add__ = __radd__ = __call__ = _refuse
    __hash__ = object.__hash__


class SymbolicList(_Closed):
    """A list whose length is known only later.

    Attributes:
        symbol: Its list value.
    """

    def __init__(self, symbol: Symbol) -> None:
        self.symbol = symbol

    def __format__(self, spec: str) -> NoReturn:
        """Refuse: a list in a text is Python's representation of it."""
        raise CannotPlan("a list is put into a text: use join_list()")

    __str__ = __repr__ = _Closed._refuse


class HostValue(_Closed):
    """What a step of the client will make. Nothing is known of it, but that its texts can be set.

    Args:
        why: Why the step is not on the server.
        bind: Makes the late-bound variable of a text, named after where it comes from.
        where: What people call the value.
    """

    def __init__(self, where: str, why: str, bind: Callable[[str, str], SymbolicText]) -> None:
        self.where = where
        self.why = why
        self._bind = bind
        self._marker: SymbolicText | None = None
        self._items: dict[Any, HostValue] = {}

    def __getitem__(self, key: Any) -> HostValue:
        """Return a part of the value; the same each time."""
        if key not in self._items:
            self._items[key] = HostValue(f"{self.where}[{key}]", self.why, self._bind)
        return self._items[key]

    def __format__(self, spec: str) -> str:
        """Return the marker of its text."""
        if spec:
            raise CannotPlan("a format spec is applied to a value of the client")
        return str(self)

    def __str__(self) -> str:
        """Return the marker of its text."""
        if self._marker is None:
            self._marker = self._bind(self.where, self.why)
        return str.__str__(self._marker)

    def __repr__(self) -> str:
        """Refuse: what ``repr`` makes of the value is not its text."""
        raise CannotPlan("repr of a value of the client")


def is_symbolic(value: Any, markers: Markers) -> bool:
    """Tell whether anything in a value is known only later."""
    if isinstance(value, SymbolicText | SymbolicList | HostValue | GeneratedMessage):
        return True
    if isinstance(value, str):
        return markers.is_marked(value)
    if isinstance(value, BaseMessage):
        return is_symbolic(value.content, markers)
    if isinstance(value, PromptValue):
        return any(is_symbolic(message, markers) for message in value.to_messages())
    if isinstance(value, Mapping):
        return any(is_symbolic(item, markers) for item in value.values())
    if isinstance(value, list | tuple):
        return _any(value, markers)
    return False


def _any(values: Iterable[Any], markers: Markers) -> bool:
    return any(is_symbolic(value, markers) for value in values)
