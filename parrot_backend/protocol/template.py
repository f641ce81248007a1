"""Template syntax of prompt strings."""

from __future__ import annotations

import re

from parrot_backend.protocol.prompts import InputSegment, OutputSegment, TextSegment

# Each class excludes what follows it, so that no text makes the search backtrack.
_PLACEHOLDER = re.compile(r"\{\{(?P<kind>[^{}:]*):(?P<name>[^{}]*)\}\}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,127}\Z")
# An input may be of an instance of a body: see ``base.Reference``.
_REFERENCE = re.compile(r"(?=.{1,1024}\Z)[A-Za-z0-9_][A-Za-z0-9_\-]*(:[A-Za-z0-9_\-]+)+\Z")


class TemplateError(ValueError):
    """A template that cannot be read.

    Attributes:
        code: ``template_syntax`` or ``unknown_placeholder``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_template(template: str) -> tuple[TextSegment | InputSegment | OutputSegment, ...]:
    """Split a template into segments; the names are the placeholders' own.

    Text between placeholders is kept to the letter; empty text gives no segment. Double braces
    that hold no ``kind:`` (a word and a colon) are ordinary text, so JSON needs no escaping.

    Raises:
        TemplateError: An unknown kind of placeholder, or a name that is not a name.
    """
    segments: list[TextSegment | InputSegment | OutputSegment] = []
    position = 0
    for match in _PLACEHOLDER.finditer(template):
        kind, name = match["kind"].strip(), match["name"].strip()
        if not kind.isidentifier():
            continue
        if kind not in ("input", "output"):
            raise TemplateError(
                "unknown_placeholder",
                f"placeholder {match[0]!r}: use {{{{input:name}}}} or {{{{output:name}}}}",
            )
        if not _NAME.match(name) and not (kind == "input" and _REFERENCE.match(name)):
            raise TemplateError("template_syntax", f"placeholder {match[0]!r}: not a valid name")
        if match.start() > position:
            segments.append(TextSegment(text=template[position : match.start()]))
        segments.append(
            InputSegment(variable=name) if kind == "input" else OutputSegment(variable=name)
        )
        position = match.end()
    if position < len(template):
        segments.append(TextSegment(text=template[position:]))
    return tuple(segments)
