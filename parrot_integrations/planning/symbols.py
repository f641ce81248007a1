"""Symbolic values: texts that stand for values to come while a program is planned.

A symbol travels through the framework's own formatting as a *marker*, a piece of text. Three layers
keep it honest:

1. The marker is a ``str`` that raises as soon as somebody looks into it (length, comparison,
   ``strip``, ``[0]``, a format spec): a step that decides by the value cannot be planned.
2. The marker carries a sample of awkward characters, between two pieces of white space. What comes
   out of a template engine with another sample, or without the white space, was changed by it; only
   changes that the server can repeat are accepted.
3. A plan is only a forecast: when the program is replayed, a call is looked up by its exact text.

Markers hold a random nonce that is made after the program's input is known, so no text of a user
can pass for one. Pure but for that nonce.
"""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Self, SupportsIndex

from parrot_backend.protocol import (
    HtmlEscapeTransform,
    HtmlUnescapeTransform,
    InputSegment,
    StripTransform,
    TextSegment,
    WireTransform,
)
from parrot_integrations.planning.calls import Segments

_OPEN, _CLOSE = "\ue000", "\ue001"

#: White space that no template has; it shows whether a text is stripped, and at which ends.
_EDGE = "\u2003\u2002"

#: Whatever a template engine may do to a text shows in one of these characters. The escape within
#: an escape tells one unescaping from two.
SAMPLE = "<b a='x'>&amp;&#x27;&amp;lt;\"{0}\\n%s\u00c4\n\t</b>"


#: 129 bits.
_NONCE_DIGITS = 39
#: So much of the nonce, at its start or end, tells that a marker was cut.
_TRACE_DIGITS = 12


_ANY_MARKER = re.compile(f"(?:{_EDGE})?{_OPEN}[^{_CLOSE}]*(?:{_CLOSE}(?:{_EDGE})?|$)")


def without_markers(text: str) -> str:
    """Return a text for people, with dots in the place of markers and pieces of them."""
    return _ANY_MARKER.sub("...", text)


class CannotPlan(Exception):  # noqa: N818 - says what happened
    """A step does with a symbolic value what cannot be foreseen; the message says what."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A value to come.

    Attributes:
        variable: Its name in the plan's graph.
        transforms: What is done to it.
        is_list: The value is a list value (see ``closed_set``), not a text.
    """

    variable: str
    transforms: tuple[WireTransform, ...] = ()
    is_list: bool = False

    def then(self, *transforms: WireTransform, is_list: bool = False) -> Symbol:
        """Return the symbol with further transforms."""
        return Symbol(self.variable, (*self.transforms, *transforms), is_list)


class SymbolicText(str):
    """A marker; may be concatenated and formatted, and raises when it is looked into.

    Attributes:
        symbol: What it stands for.
        refusal: What is raised.
    """

    refusal: ClassVar[type[BaseException]] = CannotPlan
    symbol: Symbol

    def __new__(cls, marker: str, symbol: Symbol) -> Self:
        """Return a marker for a symbol."""
        text = super().__new__(cls, marker)
        text.symbol = symbol
        return text

    def __format__(self, spec: str) -> str:
        """Return the marker; a format spec would need the value."""
        if spec:
            raise self.refusal("a format spec is applied to a generated value")
        return str.__str__(self)

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> Self:
        """Return the marker with a change that shows in its sample: that is how HTML is escaped."""
        if old not in _SAMPLED or count != -1:
            raise self.refusal("replace of a generated value")
        return type(self)(str.replace(self, old, new), self.symbol)

    # A text may be a key of a template's cache; the marker itself is as good as any.
    __hash__ = str.__hash__


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: SymbolicText, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise self.refusal(f"{name.strip('_')} of a generated value")

    return refuse


#: What takes the place of one of these shows in the sample, which has each of them.
_SAMPLED = frozenset("&<>\"'")

#: Every way to look into a text, but for ``replace``.
_LOOKS = """
    __len__ __bool__ __contains__ __getitem__ __iter__ __eq__ __ne__ __lt__ __gt__ __le__ __ge__
    __repr__ __mul__ __rmul__ __mod__ capitalize casefold center count encode endswith expandtabs
    find index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric
    isprintable isspace istitle isupper ljust lower lstrip partition removeprefix removesuffix
    rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip
    swapcase title translate upper zfill
"""
for _name in _LOOKS.split():
    setattr(SymbolicText, _name, _refusing(_name))


class Markers:
    """The markers of one plan."""

    def __init__(self) -> None:
        # Digits, because a change of case must not hide it.
        self._nonce = f"{secrets.randbelow(10**_NONCE_DIGITS):0{_NONCE_DIGITS}}"
        self._traces = (self._nonce[:_TRACE_DIGITS], self._nonce[-_TRACE_DIGITS:])
        self._symbols: list[Symbol] = []
        self._pattern = re.compile(
            f"({_EDGE})?{_OPEN}{self._nonce}:([0-9]+):([^{_OPEN}{_CLOSE}]*):{self._nonce}{_CLOSE}"
            f"({_EDGE})?",
            re.DOTALL,
        )

    def mark(self, symbol: Symbol) -> SymbolicText:
        """Return a text that stands for a symbol."""
        self._symbols.append(symbol)
        number = len(self._symbols) - 1
        nonce = self._nonce
        core = f"{_OPEN}{nonce}:{number}:{SAMPLE}:{nonce}{_CLOSE}"
        return SymbolicText(f"{_EDGE}{core}{_EDGE}", symbol)

    def is_marked(self, text: str) -> bool:
        """Tell whether a text holds a marker, even a spoiled one."""
        text = str.__str__(text)
        return any(trace in text for trace in self._traces)

    def segments(self, text: str) -> Segments:
        """Return what a text is made of.

        Raises:
            CannotPlan: A marker was changed in a way that the server cannot repeat.
        """
        parts = self._pattern.split(str.__str__(text))
        found: list[TextSegment | InputSegment] = []
        for position in range(0, len(parts), 5):
            constant = parts[position]
            if self.is_marked(constant):
                raise CannotPlan("a generated value is cut or rewritten")
            if constant:
                found.append(TextSegment(text=constant))
            if position + 4 < len(parts):
                left, number, sample, right = parts[position + 1 : position + 5]
                symbol = self._symbols[int(number)]
                found.append(_input(symbol, sample, is_left=bool(left), is_right=bool(right)))
        return tuple(found)


def _input(symbol: Symbol, sample: str, *, is_left: bool, is_right: bool) -> InputSegment:
    """Return what a marker stands for.

    Args:
        symbol: Its symbol.
        sample: What has become of the sample.
        is_left: Whether the white space at its left is still there.
        is_right: The same for its right.
    """
    if symbol.is_list:
        raise CannotPlan("a list is put into a text")
    change = _CHANGES.get(sample)
    if change is None:
        raise CannotPlan("a template changes a generated value in a way the server does not know")
    stripped = () if is_left and is_right else (_strip(is_left=is_left, is_right=is_right),)
    transforms = (*symbol.transforms, *stripped, *change)
    return InputSegment(variable=symbol.variable, transforms=transforms)


def _strip(*, is_left: bool, is_right: bool) -> StripTransform:
    if not is_left and not is_right:
        return StripTransform()
    return StripTransform(side="right" if is_left else "left")


def _escaped(double_quote: str, single_quote: str) -> str:
    text = html.escape(SAMPLE, quote=False)
    return text.replace('"', double_quote).replace("'", single_quote)


#: What a template engine may do that the server can repeat, by what becomes of the sample.
_CHANGES: dict[str, tuple[WireTransform, ...]] = {
    SAMPLE: (),
    html.unescape(SAMPLE): (HtmlUnescapeTransform(),),
    html.unescape(html.unescape(SAMPLE)): (HtmlUnescapeTransform(), HtmlUnescapeTransform()),
    html.escape(SAMPLE): (HtmlEscapeTransform(),),
    # Mustache leaves single quotes alone; Jinja's markupsafe writes both as decimal numbers.
    _escaped("&quot;", "'"): (HtmlEscapeTransform(single_quote="'"),),
    _escaped("&#34;", "&#39;"): (HtmlEscapeTransform(double_quote="&#34;", single_quote="&#39;"),),
}
