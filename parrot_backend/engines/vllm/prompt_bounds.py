"""How few tokens a prompt can have, told from its length alone. Pure.

So a prompt that is far too long is refused without being tokenised. Nothing is told where a
tokenizer may leave text out, or put text of any length into one token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from parrot_backend.core.prompt import PartKind, PromptPart

#: Most characters that NFC makes one of: the longest canonical decomposition in Unicode has four.
_CHARS_PER_COMPOSED = 4

#: What pre-tokenizers do with what they split at, if they keep it.
_KEEPING = {"Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext"}

#: The letters by which byte-level vocabularies call the 256 bytes.
_BYTES = frozenset(map(chr, (*range(33, 127), *range(161, 173), *range(174, 324))))


class PromptBounds:
    """Bounds of one tokenizer.

    Args:
        serialised: The tokenizer as JSON.
    """

    def __init__(self, serialised: str) -> None:
        tokenizer = json.loads(serialised)
        self._composes = _has(tokenizer["normalizer"], "NFC")
        self._token_chars = _longest_token(tokenizer) if _keeps_all(tokenizer) else 0

    def least_tokens(self, parts: Sequence[PromptPart]) -> int:
        """Return so many tokens that the prompt has not fewer; 0 where nothing can be told."""
        if not self._token_chars:
            return 0
        is_chat = bool(parts) and parts[0].kind is PartKind.ROLE
        num_tokens, is_kept = 0, True
        for part in parts:
            if part.kind is PartKind.ROLE:
                # Templates may leave out what is said beside calls of tools.
                is_kept = not part.head.tool_calls
            elif is_kept:
                # Templates may take white space off the ends of a message.
                num_tokens += self._tokens_in(part.text.strip() if is_chat else part.text)
        return num_tokens

    def _tokens_in(self, text: str) -> int:
        is_composed = self._composes and not text.isascii()
        return len(text) // (self._token_chars * (_CHARS_PER_COMPOSED if is_composed else 1))


def _keeps_all(tokenizer: dict[str, Any]) -> bool:
    """Tell whether each character ends up in a token that is no longer than its text."""
    model = tokenizer["model"]
    steps = list(_flat(tokenizer["pre_tokenizer"]))
    return (
        model["type"] == "BPE"
        and any(step["type"] == "ByteLevel" for step in steps)
        and all(step["type"] == "ByteLevel" or _is_keeping(step) for step in steps)
        # What is not in the vocabulary would be left out: all bytes must be.
        and model["vocab"].keys() >= _BYTES
        and all(step["type"] == "NFC" for step in _flat(tokenizer["normalizer"]))
        # Such a token takes all the white space beside it.
        and not any(added["lstrip"] or added["rstrip"] for added in tokenizer["added_tokens"])
    )


def _is_keeping(step: dict[str, Any]) -> bool:
    return step["type"] == "Digits" or (
        step["type"] in ("Split", "Punctuation") and step["behavior"] in _KEEPING
    )


def _longest_token(tokenizer: dict[str, Any]) -> int:
    """Return the length of the longest token; no token has more characters than bytes."""
    added = (token["content"] for token in tokenizer["added_tokens"])
    return max(map(len, (*tokenizer["model"]["vocab"], *added)))


def _has(step: dict[str, Any] | None, kind: str) -> bool:
    return any(one["type"] == kind for one in _flat(step))


def _flat(step: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    """Return the steps of a sequence, or the one step."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for inner in step.get("normalizers") or step.get("pretokenizers") or ():
        yield from _flat(inner)
