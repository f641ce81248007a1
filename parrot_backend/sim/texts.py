"""Texts of exact lengths: one character is one token.

Texts are made of a digest of their key, so that equal keys give equal texts and different ones
different texts, in any process. With ``CoreConfig(tokens_per_char=1.0)`` the core's estimates of
lengths are exact.
"""

from __future__ import annotations

from hashlib import blake2b

from parrot_backend.core.prompt import Text

_DIGEST_BYTES = 16

#: From so many characters on, hexadecimal digits tell keys apart (64 bits and more).
_MIN_HEX_CHARS = 16

#: Of shorter texts, each character tells 20 bits: one of the code points beyond the first 65,536.
_WIDE_BITS, _FIRST_WIDE = 20, 0x10000


def text_of(key: str, tokens: int) -> str:
    """Return the text of a key.

    Args:
        key: What it is; different keys collide with one chance in 2^(20 x tokens), at best 2^64.
        tokens: How many characters; at least 1.
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
    if tokens >= _MIN_HEX_CHARS:
        unit = digest.hexdigest()
        return (unit * (tokens // len(unit) + 1))[:tokens]
    bits = int.from_bytes(digest.digest(), "big")
    mask = (1 << _WIDE_BITS) - 1
    return "".join(
        chr(_FIRST_WIDE + (bits >> (_WIDE_BITS * (place % 6)) & mask)) for place in range(tokens)
    )


def output_text(job: int, call: str, tokens: int) -> str:
    """Return what a call of a job makes, wherever and however often it runs."""
    return text_of(f"output {job} {call}", tokens)


#: Text that is remembered, in bytes, and what a short one takes beside its characters.
_MAX_BYTES, _ENTRY_BYTES = 1 << 20, 300


class ConstantTexts:
    """Constant texts as segments of prompts; those of late are made once and shared."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self._segments: dict[tuple[str, int], Text] = {}

    def segment(self, key: str, tokens: int) -> Text:
        """Return a constant's text."""
        found = self._segments.get((key, tokens))
        if found is not None:
            return found
        made = self._segments[key, tokens] = Text(text_of(f"constant {key}", tokens))
        self._num_bytes += tokens + _ENTRY_BYTES
        while self._num_bytes > _MAX_BYTES:
            oldest = next(iter(self._segments))
            del self._segments[oldest]
            self._num_bytes -= oldest[1] + _ENTRY_BYTES
        return made
