"""What lists and conditions mean: the rules that a server and its clients must agree on. Pure.

The server runs them on generated values, so that a program's control flow needs no way through the
client; a client runs them on the same values to follow. A *list value* is a JSON array of strings.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from typing import Literal, assert_never

#: At the start of a line: a bullet, or a number with what follows it.
_LIST_MARK = re.compile(r"(?:[-*+\u2022]|\(?[0-9]{1,4}[.):])[ \t]+")

#: Brackets that are tried as the start of a JSON array.
_MAX_ARRAY_STARTS = 32

#: All tries together may read so many times the text, and a little more, so that the time stays
#: linear; short texts can be tried from every start.
_MAX_ARRAY_PASSES, _FREE_ARRAY_CHARS = 4, 2**20

#: Which ends of a text are stripped.
StripSide = Literal["both", "left", "right"]

ConditionOp = Literal["contains", "equals", "starts_with", "ends_with", "is_empty"]


def strip(text: str, side: StripSide = "both") -> str:
    """Return a text without the white space at its ends, or at one."""
    match side:
        case "both":
            return text.strip()
        case "left":
            return text.lstrip()
        case "right":
            return text.rstrip()
    assert_never(side)


def split_lines(text: str) -> list[str]:
    """Return the lines that are not blank, without bullets, numbers and spaces at the ends."""
    lines = (line.strip() for line in text.splitlines())
    items = (line[mark.end() :] if (mark := _LIST_MARK.match(line)) else line for line in lines)
    return [item for item in items if item]


def split_list(text: str, separator: str) -> list[str]:
    """Return the pieces between separators, stripped, without empty ones."""
    return [piece for part in text.split(separator) if (piece := part.strip())]


def json_list(text: str) -> list[str]:
    """Return the items of the first JSON array in a text; those that are no strings as JSON.

    Raises:
        ValueError: There is none, or it is nested too deeply.
    """
    decoder, start = json.JSONDecoder(), -1
    budget = _MAX_ARRAY_PASSES * len(text) + _FREE_ARRAY_CHARS
    for _ in range(_MAX_ARRAY_STARTS):
        start = text.find("[", start + 1)
        if start < 0 or budget < 0:
            break
        try:
            items, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as exc:
            budget -= _chars_read(exc, len(text)) - start
            continue
        return [json_text(item) for item in items]
    raise ValueError("no JSON array")


def html_escape(text: str, double_quote: str = "&quot;", single_quote: str = "&#x27;") -> str:
    """Return a text with ``& < >`` escaped and quotes replaced."""
    escaped = html.escape(text, quote=False)
    return escaped.replace('"', double_quote).replace("'", single_quote)


def list_value(items: Sequence[str]) -> str:
    """Return items as the value of a variable."""
    return json.dumps(list(items), ensure_ascii=False)


def list_items(value: str) -> list[str]:
    """Return the items of a list value; those that are no strings as JSON.

    Raises:
        ValueError: It is not a JSON array.
    """
    try:
        items = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise ValueError("not a JSON array") from exc
    if not isinstance(items, list):
        raise ValueError("not a JSON array")
    return [json_text(item) for item in items]


def join_list(items: Sequence[str], separator: str, item: str = "{}") -> str:
    """Return items in one text; ``{}`` in ``item`` is the place of each."""
    return separator.join(item.replace("{}", each, 1) for each in items)


def holds(
    op: ConditionOp, value: str, text: str = "", *, ignore_case: bool = False, negate: bool = False
) -> bool:
    """Tell whether a condition holds of a value."""
    if ignore_case:
        value, text = value.casefold(), text.casefold()
    return _holds(op, value, text) is not negate


def _holds(op: ConditionOp, value: str, text: str) -> bool:
    match op:
        case "contains":
            return text in value
        case "equals":
            return value == text
        case "starts_with":
            return value.startswith(text)
        case "ends_with":
            return value.endswith(text)
        case "is_empty":
            return not value.strip()
    assert_never(op)


def json_text(item: object) -> str:
    """Return a string as it is, and anything else that JSON can say as JSON.

    Raises:
        ValueError: It is nested too deeply: there are depths that can be read, but not written.
    """
    try:
        return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    except RecursionError as exc:
        raise ValueError("the JSON is nested too deeply") from exc


def _chars_read(error: Exception, end: int) -> int:
    """Return up to where a decoder has read at most before this error."""
    if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated"):
        return end  # of a string without an end, the error only tells the beginning
    return error.pos
