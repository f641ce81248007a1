"""The server's closed set of transforms and conditions, as far as plans use it, on known values."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from parrot_backend import closed_set
from parrot_backend.protocol import (
    Condition,
    HtmlEscapeTransform,
    HtmlUnescapeTransform,
    InputSegment,
    JoinListTransform,
    JsonListTransform,
    SplitLinesTransform,
    SplitListTransform,
    StripTransform,
    TextSegment,
    WireTransform,
)


def transformed(text: str, transforms: Iterable[WireTransform]) -> str:
    """Return a text after all transforms.

    Raises:
        ValueError: One does not apply to this value, or is none that plans use.
    """
    for transform in transforms:
        text = _transformed(text, transform)
    return text


def rendered(segments: Iterable[TextSegment | InputSegment], values: Mapping[str, str]) -> str:
    """Return the text that segments make with these values.

    Raises:
        ValueError: A transform does not apply.
    """
    return "".join(
        segment.text
        if isinstance(segment, TextSegment)
        else transformed(values[segment.variable], segment.transforms)
        for segment in segments
    )


def untransformed(text: str, transforms: tuple[WireTransform, ...]) -> str | None:
    """Return a value that the transforms make this text of; None if there is none in sight."""
    value = text
    try:
        for transform in reversed(transforms):
            if isinstance(transform, HtmlEscapeTransform):
                value = html.unescape(value)
            elif isinstance(transform, HtmlUnescapeTransform):
                # Of all values that there may be, the likeliest.
                value = value if html.unescape(value) == value else html.escape(value)
            elif isinstance(transform, StripTransform):
                # What was stripped cannot be told; without it, the text is the same.
                continue
            else:
                return None
        return value if transformed(value, transforms) == text else None
    except ValueError:
        # An entity of thousands of digits, for example.
        return None


def condition_holds(condition: Condition, values: Mapping[str, str]) -> bool:
    """Tell whether a condition holds of known values.

    Raises:
        ValueError: A transform does not apply.
    """
    return closed_set.holds(
        condition.op,
        transformed(values[condition.input.variable], condition.input.transforms),
        condition.text,
        ignore_case=condition.ignore_case,
        negate=condition.negate,
    )


def _transformed(text: str, transform: WireTransform) -> str:
    match transform:
        case StripTransform():
            return closed_set.strip(text, transform.side)
        case HtmlEscapeTransform():
            return closed_set.html_escape(text, transform.double_quote, transform.single_quote)
        case HtmlUnescapeTransform():
            return html.unescape(text)
        case SplitLinesTransform():
            return closed_set.list_value(closed_set.split_lines(text))
        case SplitListTransform():
            return closed_set.list_value(closed_set.split_list(text, transform.separator))
        case JsonListTransform():
            return closed_set.list_value(closed_set.json_list(text))
        case JoinListTransform():
            items = closed_set.list_items(text)
            return closed_set.join_list(items, transform.separator, transform.item)
        case _:
            raise ValueError(f"{transform.op} is not used in plans")
