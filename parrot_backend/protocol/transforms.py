"""The closed set of text transforms, as they are sent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parrot_backend.protocol.base import WireModel


class StripTransform(WireModel):
    """Remove white space at both ends, or at one."""

    op: Literal["strip"] = "strip"
    side: Literal["both", "left", "right"] = "both"


class HtmlEscapeTransform(WireModel):
    """Escape ``& < >``, and quotes as the template engines of the world do, each in its way."""

    op: Literal["html_escape"] = "html_escape"
    double_quote: Literal["&quot;", "&#34;", '"'] = "&quot;"
    single_quote: Literal["&#x27;", "&#39;", "'"] = "&#x27;"


class HtmlUnescapeTransform(WireModel):
    """Undo HTML escapes."""

    op: Literal["html_unescape"] = "html_unescape"


class RegexGroupTransform(WireModel):
    """Take one group of the first match of an RE2 pattern."""

    op: Literal["regex_group"] = "regex_group"
    pattern: str
    group: int = Field(default=0, ge=0)


class JsonFieldTransform(WireModel):
    """Parse as JSON and walk a dotted path."""

    op: Literal["json_field"] = "json_field"
    path: str = Field(min_length=1)


class SplitTransform(WireModel):
    """Split at a separator and take one piece."""

    op: Literal["split"] = "split"
    separator: str = Field(min_length=1)
    index: int


class FormatTransform(WireModel):
    """Put the value in the place of ``{}`` in a template."""

    op: Literal["format"] = "format"
    template: str


class SplitLinesTransform(WireModel):
    """Make a JSON array of the lines that are not blank, without bullets and numbers."""

    op: Literal["split_lines"] = "split_lines"


class SplitListTransform(WireModel):
    """Make a JSON array of the pieces between separators, stripped, without empty ones."""

    op: Literal["split_list"] = "split_list"
    separator: str = Field(min_length=1)


class JsonListTransform(WireModel):
    """Find the first JSON array in the text; items that are no strings become JSON text."""

    op: Literal["json_list"] = "json_list"


class JoinListTransform(WireModel):
    """Join a JSON array to one text; ``{}`` in ``item`` is the place of each item."""

    op: Literal["join_list"] = "join_list"
    separator: str
    item: str = "{}"


WireTransform = Annotated[
    StripTransform
    | HtmlEscapeTransform
    | HtmlUnescapeTransform
    | RegexGroupTransform
    | JsonFieldTransform
    | SplitTransform
    | FormatTransform
    | SplitLinesTransform
    | SplitListTransform
    | JsonListTransform
    | JoinListTransform,
    Field(discriminator="op"),
]
