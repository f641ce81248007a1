"""Which calls of an application are alike: what their prompts say beside what they are given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from parrot_backend.core.discovery.pieces import Pieces, Reference

#: Instructions stand at the ends of a prompt: who the model is, and what it shall do.
_END_CHARS = 64

_NUMBER = re.compile(r"[0-9]+")


def template_of(texts: Sequence[str], pieces: Sequence[Pieces], stage: str | None = None) -> str:
    """Return the name of a prompt's template.

    It is made of the stage, of how the prompt begins, and how it ends after the last value it
    reads, numbers left out: ``Coder 1`` and ``Coder 2`` do the same.

    Args:
        texts: The messages' texts.
        pieces: What they are made of.
        stage: Which part of the program this is, if the client says so.
    """
    head = _before_values(texts[0], pieces[0]) if texts else ""
    tail = _after_values(texts[-1], pieces[-1]) if texts else ""
    name = _NUMBER.sub("0", f"{stage or ''}\0{head}\n{tail}")
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _before_values(text: str, pieces: Pieces) -> str:
    first = next((p.start for p in pieces if isinstance(p, Reference)), len(text))
    return text[: min(first, _END_CHARS)]


def _after_values(text: str, pieces: Pieces) -> str:
    last = next((p.end for p in reversed(pieces) if isinstance(p, Reference)), 0)
    return text[max(last, len(text) - _END_CHARS) :]
