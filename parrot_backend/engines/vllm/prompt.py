"""Prompt parts to token ids, part by part. Pure: needs a tokenizer, no engine.

Each part is tokenised by itself, so that prompts with equal leading parts have equal leading ids,
which is what a prefix cache goes by. The ids of a part depend on nothing but the part, the template
texts round it, and whether a value follows:

* Spaces at the end of a constant that a value follows go to the front of the value, because
  tokenizers join a space to the word after it. Line breaks stay, they join to the left.
* A value that was generated at its very place has its ids already; they are used as they are, and
  nothing moves into it.
* Texts of users are tokenised without special tokens: a user who writes the name of one gets its
  letters. Only the chat template's own texts hold special tokens; those that stand in tools or in
  calls of them count as letters, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

from parrot_backend.core.chat import NO_CHAT, ChatOptions
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.engines.vllm.chat_frame import Content, take_apart
from parrot_backend.engines.vllm.chat_template import (
    ChatTemplate,
    Literal,
    PromptError,
    Render,
    Slot,
)
from parrot_backend.engines.vllm.prompt_bounds import PromptBounds
from parrot_backend.engines.vllm.prompt_cuts import CutFinder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["ChatTokenizer", "EncodedPrompt", "PromptEncoder", "PromptError"]

#: A piece of the final prompt: text of the template, or a part with text of a user.
_Piece = str | PromptPart

#: A piece, and the position of the part that it is; None for text of the template.
_Placed = tuple[_Piece, int | None]

#: Stands for the position of text of the template.
_TEMPLATE = -1

#: A place inside of a part: its position, and an offset in characters.
Cut = tuple[int, int]


class EncodedPrompt(NamedTuple):
    """The ids of a prompt.

    Attributes:
        ids: The ids.
        ends: After how many of them each part ends.
        settled: How many leading ones do not depend on what follows each cut; 0 where that is not
            known.
    """

    ids: list[int]
    ends: list[int]
    settled: list[int]


class ChatTokenizer(Protocol):
    """What is needed of a tokenizer of transformers."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer proper."""
        ...

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render messages with the model's template."""
        ...


class PromptEncoder:
    """Turns the parts of prompts into token ids; safe to use from several threads.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        # Copies: the setting below is the object's own, and others use the original, too.
        copy = type(tokenizer.backend_tokenizer).from_str
        serialised = tokenizer.backend_tokenizer.to_str()
        self._special, self._literal = copy(serialised), copy(serialised)
        for one in (self._special, self._literal):
            one.no_padding()
            one.no_truncation()
        self._literal.encode_special_tokens = True
        # It would trim the offsets of tokens that end with white space.
        self._literal.post_processor = None
        self._bounds = PromptBounds(serialised)
        self._leading_ids = _leading_ids(self._special)
        self._anchor = "" if _joins_cleanly(self._special) else "\n"
        self._num_anchor_ids = len(self._special.encode(self._anchor, add_special_tokens=False))
        self._cuts = CutFinder(self._literal, self._anchor, self._num_anchor_ids)
        added = self._special.get_added_tokens_decoder().values()
        special_texts = [token.content for token in added if token.special]
        self._template = ChatTemplate(_renderer(tokenizer), special_texts)
        self._ids_of_constant = lru_cache(maxsize=512)(self._ids_of_text)

    def encode(self, parts: Sequence[PromptPart], chat: ChatOptions = NO_CHAT) -> list[int]:
        """Return the ids of a prompt; see :meth:`encode_with_ends`."""
        return self.encode_with_ends(parts, chat)[0]

    def encode_with_ends(
        self, parts: Sequence[PromptPart], chat: ChatOptions = NO_CHAT
    ) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt, and after how many of them each part ends.

        Spaces that go from the end of a constant to the value after it count for the value. A
        role ends where the part before it does.

        Raises:
            PromptError: The chat template refuses the messages.
        """
        encoded = self.encode_with_cuts(parts, (), chat)
        return encoded.ids, encoded.ends

    def encode_with_cuts(
        self, parts: Sequence[PromptPart], cuts: Sequence[Cut], chat: ChatOptions = NO_CHAT
    ) -> EncodedPrompt:
        """Return the ids of a prompt, and how many do not depend on what follows each cut.

        Prompts of one layout that are equal up to a cut, and have it in common, have equal ids up
        to there. A cut with no settled place inside of its part counts as settled at its start.

        Raises:
            PromptError: The chat template refuses the messages.
        """
        offsets: dict[int, list[int]] = {}
        for part, offset in cuts:
            offsets.setdefault(part, []).append(offset)
        settled: dict[Cut, int] = {}
        is_chat = bool(parts) and parts[0].kind is PartKind.ROLE
        # A chat template writes the token that begins a text itself.
        ids = [] if is_chat else list(self._leading_ids)
        pieces = self._chat_pieces(parts, chat) if is_chat else _placed(parts)
        ends: dict[int, int] = {}
        is_first = True
        for piece, place in _with_spaces_moved(pieces):
            origin = _TEMPLATE if place is None else place
            added = self._ids_of(piece, is_first)
            if origin in offsets and isinstance(piece, PromptPart) and piece.token_ids is None:
                text = parts[origin].text
                within = self._cuts.settled(text, piece.text, added, offsets[origin], is_first)
                settled.update(((origin, at), len(ids) + count) for at, count in within.items())
            ids += added
            is_first = False
            ends[origin] = len(ids)
        return EncodedPrompt(ids, _all_ends(parts, ends), [settled.get(cut, 0) for cut in cuts])

    def least_tokens(self, parts: Sequence[PromptPart]) -> int:
        """Return so many tokens that a prompt has not fewer, without looking at its text."""
        return self._bounds.least_tokens(parts)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""
        return str(self._special.decode(list(token_ids), skip_special_tokens=True))

    def _ids_of(self, piece: _Piece, is_first: bool) -> Sequence[int]:
        if isinstance(piece, str):
            return self._ids_of_constant(piece, is_first, True)
        if piece.token_ids is not None:
            return piece.token_ids
        if piece.kind is PartKind.CONSTANT:
            return self._ids_of_constant(piece.text, is_first, False)
        return self._ids_of_text(piece.text, is_first, False)

    def _ids_of_text(self, text: str, is_first: bool, has_special: bool) -> Sequence[int]:
        tokenizer = self._special if has_special else self._literal
        if is_first or not self._anchor:
            return tuple(_ids(tokenizer, text))
        return tuple(_ids(tokenizer, self._anchor + text)[self._num_anchor_ids :])

    def _chat_pieces(self, parts: Sequence[PromptPart], chat: ChatOptions) -> list[_Placed]:
        frame, contents, continues_last = take_apart(parts, chat)
        pieces: list[_Placed] = []
        for piece in self._template.layout(frame, continues_last):
            match piece:
                case Slot():
                    pieces += _content(contents, piece)
                case Literal(text):
                    pieces.append((PromptPart(PartKind.CONSTANT, text), None))
                case _:
                    pieces.append((piece, None))
        return pieces


def _renderer(tokenizer: ChatTokenizer) -> Render:
    def render(
        messages: list[dict[str, Any]], has_reply_header: bool, options: dict[str, Any]
    ) -> str:
        # It comes with the tokenizer's library, and only chats need it.
        from jinja2 import TemplateError

        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=has_reply_header, **options
            )
        except (TemplateError, TypeError, ValueError) as exc:
            raise PromptError(f"the model's chat template refuses these messages: {exc}") from exc
        return str(text)

    return render


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text by itself.

    Unlike ``encode``, a batch lets other threads run meanwhile; without offsets it is faster, too.
    """
    return list(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def _leading_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what the tokenizer puts in front of any text, such as a token that begins it."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    return tuple(framed[: framed.index(plain[0])])


def _joins_cleanly(tokenizer: Tokenizer) -> bool:
    """Tell whether the ids of two texts, put together, are ids of the joined text."""
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in ("a", "b")]
    return bool(tokenizer.decode(ids[0] + ids[1]) == "ab")


def _placed(parts: Sequence[PromptPart]) -> list[_Placed]:
    return [(part, position) for position, part in enumerate(parts)]


def _content(contents: Sequence[Content], slot: Slot) -> list[_Placed]:
    """Return the parts of a message, trimmed at the ends and quoted as the template would."""
    content = list(contents[slot.message])
    if slot.trims_left:
        content = _trimmed(content, str.lstrip)
    if slot.trims_right:
        content = _trimmed(content[::-1], str.rstrip)[::-1]
    if slot.is_json:
        return [(_quoted(part), at) for part, at in content]
    return list(content)


def _quoted(part: PromptPart) -> PromptPart:
    return replace(part, text=json.dumps(part.text, ensure_ascii=False)[1:-1], token_ids=None)


def _trimmed(content: Content, trim: Any) -> Content:
    for i, (part, position) in enumerate(content):
        if part.token_ids is not None:
            return content[i:]
        text = trim(part.text)
        if text:
            return [(replace(part, text=text), position), *content[i + 1 :]]
    return []


def _with_spaces_moved(pieces: Iterable[_Placed]) -> list[_Placed]:
    moved: list[_Placed] = []
    for piece, position in pieces:
        if isinstance(piece, str) or piece.token_ids is not None:
            moved.append((piece, position))
            continue
        last, last_position = moved[-1] if moved else ("", None)
        if piece.kind is PartKind.VALUE and _is_constant(last):
            moved.pop()
            kept = last.text.rstrip(" \t")
            if kept:
                moved.append((replace(last, text=kept), last_position))
            piece = replace(piece, text=last.text[len(kept) :] + piece.text)
        if piece.text:
            moved.append((piece, position))
    return moved


def _all_ends(parts: Sequence[PromptPart], ends: dict[int, int]) -> list[int]:
    """Return where each part ends; one that left no ids ends where the part before it does."""
    result: list[int] = []
    for position in range(len(parts)):
        result.append(ends.get(position, result[-1] if result else 0))
    return result


def _is_constant(piece: _Piece) -> TypeGuard[PromptPart]:
    return not isinstance(piece, str) and piece.kind is PartKind.CONSTANT
