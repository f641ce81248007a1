"""Hashes of the beginnings of a prompt that others may share, in the middle of a message too.

A prompt's own boundaries (:mod:`parrot_backend.core.prefix`) lie where its parts end, and a part is
what is tokenised by itself. What discovery finds must not change tokens, so a beginning that ends
inside of a part has a hash of its own kind: it tells which requests and engines share it, and no
engine can be asked to keep exactly that.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from parrot_backend.core.prefix import PrefixBoundary, PrefixChain

_DIGEST_BYTES = 16


@lru_cache(maxsize=1)  # choices of one prompt have the same ones, and come one after the other
def shared_beginnings(
    seed: str,
    messages: tuple[tuple[str, str], ...],
    cuts: tuple[tuple[int, ...], ...],
    tokens_per_char: float,
) -> PrefixChain:
    """Return a boundary for each cut and each end of a message, shortest first.

    Two prompts have a boundary in common exactly when they are equal up to there and both are cut
    there. The time is linear in the prompt.

    Args:
        seed: Keeps apart what must not be shared: model, tenant and tools.
        messages: Heads (role, and what else a message has before its text) and texts.
        cuts: For each message rising offsets in its text.
        tokens_per_char: Estimate that turns lengths into tokens.
    """
    before = _digest(b"s", seed)
    boundaries: list[PrefixBoundary] = []
    num_chars = 0
    for (head, text), offsets in zip(messages, cuts, strict=True):
        state = blake2b(before + _digest(b"h", head), digest_size=_DIGEST_BYTES)
        start = 0
        for offset in (*offsets, len(text)):
            state.update(text[start:offset].encode("utf-8", "surrogatepass"))
            num_tokens = int((num_chars + len(head) + offset) * tokens_per_char)
            boundaries.append(PrefixBoundary(state.digest(), num_tokens))
            start = offset
        num_chars += len(head) + len(text)
        before = state.digest()
    return tuple(boundaries)


def _digest(tag: bytes, text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return blake2b(tag + data, digest_size=_DIGEST_BYTES).digest()
