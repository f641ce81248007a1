"""Beginnings of a prompt that others may share, which end in the middle of a message.

A prompt's own boundaries (:mod:`parrot_backend.core.prefix`) lie where its parts end, and a part is
what is tokenised by itself. What discovery finds must not change tokens, so a beginning that ends
inside of a part has a hash of its own kind, and says where it ends. An engine that can keep it
looks for the nearest place before that where tokens depend on nothing that follows.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from parrot_backend.core.prefix import PrefixBoundary

_DIGEST_BYTES = 16

#: Begins each part of a message; no text holds this byte.
_PART = b"\xff"


class Message(NamedTuple):
    """A message as beginnings see it; a raw prompt is one.

    Attributes:
        head: Its role, and what else it has before its text.
        parts: Positions among the parts of the prompt, and texts; together they are its text.
    """

    head: str
    parts: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(text for _, text in self.parts)


class Beginning(NamedTuple):
    """The beginning of a prompt up to a place inside of a part.

    Attributes:
        boundary: Its hash and its (estimated) length.
        part: Position of the part in which it ends.
        offset: After how many characters of that part.
    """

    boundary: PrefixBoundary
    part: int
    offset: int


Beginnings = tuple[Beginning, ...]


@lru_cache(maxsize=1)  # choices of one prompt have the same ones, and come one after the other
def shared_beginnings(
    seed: str,
    messages: tuple[Message, ...],
    cuts: tuple[tuple[int, ...], ...],
    tokens_per_char: float,
) -> Beginnings:
    """Return a beginning for each cut, shortest first.

    Two prompts have one in common exactly when they are equal up to there, part by part, and both
    are cut there. The time is linear in the prompt.

    Args:
        seed: Keeps apart what must not be shared: model, tenant and tools.
        messages: The messages.
        cuts: For each message rising offsets in its text.
        tokens_per_char: Estimate that turns lengths into tokens.
    """
    before = _digest(b"s", seed)
    found: list[Beginning] = []
    num_chars = 0
    for (head, parts), offsets in zip(messages, cuts, strict=True):
        state = blake2b(before + _digest(b"h", head), digest_size=_DIGEST_BYTES)
        num_chars += len(head)
        pending, start = list(reversed(offsets)), 0
        for position, text in parts:
            state.update(_PART)
            done = 0
            while pending and pending[-1] <= start + len(text):
                end = pending.pop() - start
                state.update(_bytes(text[done:end]))
                num_tokens = int((num_chars + end) * tokens_per_char)
                boundary = PrefixBoundary(state.digest(), num_tokens)
                found.append(Beginning(boundary, position, end))
                done = end
            state.update(_bytes(text[done:]))
            start += len(text)
            num_chars += len(text)
        before = state.digest()
    return tuple(found)


def _digest(tag: bytes, text: str) -> bytes:
    return blake2b(tag + _bytes(text), digest_size=_DIGEST_BYTES).digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
