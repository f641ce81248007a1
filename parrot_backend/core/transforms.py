"""The closed set of text transforms that run on the server.

No tenant code runs here, and each transform takes time linear in its input: regular expressions
are matched by RE2, which has no backtracking.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, assert_never

import re2

from parrot_backend import closed_set
from parrot_backend.errors import RequestError

MAX_PATTERN_CHARS = 1024

#: Longest chain of transforms of one text.
MAX_TRANSFORMS = 32

#: What the transforms of all inputs of one node may read together, in characters.
MAX_TRANSFORMED_CHARS = 32 * 2**20

#: Longest text a transform may make: a few of them could double a text into all memory.
MAX_VALUE_CHARS = 8 * 2**20

#: Longest prompt that is put together at all; no model takes a part of that.
MAX_PROMPT_CHARS = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Strip:
    """Remove white space at both ends, or at one."""

    side: closed_set.StripSide = "both"


@dataclass(frozen=True, slots=True)
class HtmlEscape:
    """Escape ``& < >``, and put these in the place of quotes."""

    double_quote: str = "&quot;"
    single_quote: str = "&#x27;"


@dataclass(frozen=True, slots=True)
class HtmlUnescape:
    """Undo :class:`HtmlEscape` and named entities."""


@dataclass(frozen=True, slots=True)
class RegexGroup:
    """Take one group of the first match of an RE2 pattern (``.`` matches newlines)."""

    pattern: str
    group: int = 0


@dataclass(frozen=True, slots=True)
class JsonField:
    """Parse as JSON and walk a path such as ``items.0.title``; non-strings stay JSON text."""

    path: str


@dataclass(frozen=True, slots=True)
class Split:
    """Split at a separator and take one piece; negative indexes count from the end."""

    separator: str
    index: int


@dataclass(frozen=True, slots=True)
class Format:
    """Put the text in the place of ``{}`` in a template (once; nothing else is interpreted)."""

    template: str


@dataclass(frozen=True, slots=True)
class SplitLines:
    """See :func:`closed_set.split_lines`; the result is a list value."""


@dataclass(frozen=True, slots=True)
class SplitList:
    """See :func:`closed_set.split_list`; the result is a list value."""

    separator: str


@dataclass(frozen=True, slots=True)
class JsonList:
    """See :func:`closed_set.json_list`; the result is a list value."""


@dataclass(frozen=True, slots=True)
class JoinList:
    """See :func:`closed_set.join_list`; takes a list value."""

    separator: str
    item: str = "{}"


Transform = (
    Strip
    | HtmlEscape
    | HtmlUnescape
    | RegexGroup
    | JsonField
    | Split
    | Format
    | SplitLines
    | SplitList
    | JsonList
    | JoinList
)


class TransformError(Exception):
    """A transform does not apply to this value."""


class TransformBudget:
    """How much the transforms of one node may still read."""

    def __init__(self) -> None:
        self._left = MAX_TRANSFORMED_CHARS

    def spend(self, num_chars: int) -> None:
        """Take off what a transform is about to read.

        Raises:
            TransformError: There is not so much left.
        """
        self._left -= num_chars
        if self._left < 0:
            raise TransformError(
                f"the transforms read more than {MAX_TRANSFORMED_CHARS} characters together"
            )


def check_transforms(transforms: tuple[Transform, ...]) -> None:
    """Reject a chain of transforms that is too long, or could never work.

    Raises:
        RequestError: ``invalid_transform`` with the reason.
    """
    if len(transforms) > MAX_TRANSFORMS:
        message = f"{len(transforms)} transforms of one text, {MAX_TRANSFORMS} are allowed"
        raise RequestError("invalid_transform", message, limit=MAX_TRANSFORMS)
    for transform in transforms:
        check_transform(transform)


def check_transform(transform: Transform) -> None:
    """Reject a transform that could never work.

    Raises:
        RequestError: ``invalid_transform`` with the reason.
    """
    if isinstance(transform, RegexGroup):
        if len(transform.pattern) > MAX_PATTERN_CHARS:
            raise RequestError("invalid_transform", f"pattern over {MAX_PATTERN_CHARS} characters")
        try:
            groups = _compile(transform.pattern).groups
        except (re2.error, UnicodeError) as exc:
            raise RequestError("invalid_transform", f"not an RE2 pattern: {exc}") from exc
        if not 0 <= transform.group <= groups:
            raise RequestError(
                "invalid_transform", f"group {transform.group} of a pattern with {groups} groups"
            )
    if isinstance(transform, Split | SplitList) and not transform.separator:
        raise RequestError("invalid_transform", "split needs a separator")
    if isinstance(transform, Format) and "{}" not in transform.template:
        raise RequestError("invalid_transform", "format needs {} in its template")
    if isinstance(transform, JoinList) and "{}" not in transform.item:
        raise RequestError("invalid_transform", "join_list needs {} in its item")


def apply_transforms(
    text: str, transforms: tuple[Transform, ...], budget: TransformBudget | None = None
) -> str:
    """Return the text after all transforms; None gives them a budget of their own.

    Raises:
        TransformError: A transform does not apply to this value.
    """
    budget = budget or TransformBudget()
    for transform in transforms:
        budget.spend(len(text))
        try:
            text = _apply(text, transform)
            # JSON can spell half a surrogate pair, which is not text and fits in no reply.
            text.encode()
        except (ValueError, LookupError, ArithmeticError, RecursionError) as exc:
            # Nothing that a value can do may end a propagation halfway.
            raise TransformError(f"{type(transform).__name__}: {exc}") from exc
        if len(text) > MAX_VALUE_CHARS:
            raise TransformError(f"the text is longer than {MAX_VALUE_CHARS} characters")
    return text


def _apply(text: str, transform: Transform) -> str:
    match transform:
        case Strip(side):
            return closed_set.strip(text, side)
        case HtmlEscape(double_quote, single_quote):
            return closed_set.html_escape(text, double_quote, single_quote)
        case HtmlUnescape():
            return html.unescape(text)
        case RegexGroup(pattern, group):
            return _regex_group(text, pattern, group)
        case JsonField(path):
            return _json_field(text, path)
        case Split(separator, index):
            pieces = text.split(separator)
            if not -len(pieces) <= index < len(pieces):
                raise TransformError(f"split gave {len(pieces)} pieces, piece {index} is wanted")
            return pieces[index]
        case Format(template):
            return template.replace("{}", text, 1)
        case SplitLines():
            return closed_set.list_value(closed_set.split_lines(text))
        case SplitList(separator):
            return closed_set.list_value(closed_set.split_list(text, separator))
        case JsonList():
            return closed_set.list_value(closed_set.json_list(text))
        case JoinList(separator, item):
            return closed_set.join_list(closed_set.list_items(text), separator, item)
    assert_never(transform)


@lru_cache(maxsize=512)
def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(pattern, options)


def _regex_group(text: str, pattern: str, group: int) -> str:
    match = _compile(pattern).search(text)
    if match is None or match.group(group) is None:
        raise TransformError(f"pattern {pattern!r} does not match")
    return str(match.group(group))


def _json_field(text: str, path: str) -> str:
    try:
        value: Any = json.loads(text)
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as exc:
        raise TransformError(f"no JSON field {path!r}: {type(exc).__name__}") from exc
    return closed_set.json_text(value)
