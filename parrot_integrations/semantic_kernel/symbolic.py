"""Generated values as templates see them while a prompt function is planned.

Template engines write what they are given into their debug messages, and catch exceptions: a
marker of theirs can be shown (what it shows is noticed as spoiled wherever it is used), and what it
raises when it is looked into passes through every ``except Exception``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from parrot_integrations.planning.symbols import SymbolicText


class TemplateCut(BaseException):
    """A template, or a function in it, decides by a generated value; the message says how.

    It is no ``Exception``, because template engines turn those into texts or log them as errors.
    """


class TemplateText(SymbolicText):
    """A marker within a template."""

    refusal: ClassVar[type[BaseException]] = TemplateCut

    @classmethod
    def of(cls, text: SymbolicText) -> TemplateText:
        """Return the marker of the same symbol for templates."""
        return cls(str.__str__(text), text.symbol)

    def __repr__(self) -> str:
        """Return a text in which the marker is spoiled."""
        return str.__repr__(self)

    def strip(self, chars: str | None = None) -> TemplateText:
        """Return the marker without the white space around it; that it is gone shows."""
        if chars is not None:
            raise TemplateCut("strip of a generated value")
        return TemplateText(str.strip(self), self.symbol)

    # Without this, the class would not be hashable.
    __hash__ = str.__hash__


class TracedResult:
    """What takes the place of a ``FunctionResult`` in a template.

    Args:
        text: Makes its text when that is first asked for: a text that nobody reads is none of the
            plan's variables.

    Attributes:
        is_printed: A template engine prints the result itself, and wants an exact ``str``.
    """

    def __init__(self, text: Callable[[], str]) -> None:
        self.is_printed = False
        self._make = text
        self._text: str | None = None

    def __str__(self) -> str:
        """Return the text, with a marker for what is known later."""
        if self._text is None:
            self._text = self._make()
        return str.__str__(self._text) if self.is_printed else self._text

    def __repr__(self) -> str:
        """Raise: what a result shows is known later."""
        raise TemplateCut("the representation of a result is used")

    def __getattr__(self, name: str) -> Any:
        """Raise: what a result holds is known later."""
        if name.startswith("__"):
            # Is it awaitable, has it a length: as little as a result.
            raise AttributeError(name)
        raise TemplateCut(f"{name} of a result is used")

    def __iter__(self) -> Any:
        """Raise: a result can be iterated over, and yields what it holds."""
        raise TemplateCut("a result is iterated over")

    def __eq__(self, other: object) -> bool:
        """Raise: results are compared by what they hold."""
        raise TemplateCut("a result is compared")

    __hash__ = None  # type: ignore[assignment]
