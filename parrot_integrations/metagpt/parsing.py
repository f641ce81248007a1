"""What MetaGPT's ``CodeParser`` cuts out of a text, as a transform that the server has. Pure."""

from __future__ import annotations

import re

from parrot_backend.protocol import RegexGroupTransform

#: White space of the server's regular expressions; Python's has more.
_SPACE = r"[\t\n\f\r ]"
_WORD = re.compile(r"[A-Za-z0-9_]*")


def code_of(text: str, part: str, lang: str) -> RegexGroupTransform | None:
    """Return the transform that takes a part out of a text, as ``CodeParser.parse_code`` does.

    Args:
        text: The whole.
        part: What the parser returned.
        lang: The language it was told.

    Returns:
        None if the server's regular expressions would find something else, or nothing.
    """
    if not _WORD.fullmatch(lang):
        return None
    pattern = rf"(?s)```{lang}.*?{_SPACE}+(.*?)```"
    match = re.search(pattern, text)
    if match is None or match[1] != part:
        return None
    return RegexGroupTransform(pattern=pattern, group=1)
