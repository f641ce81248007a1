"""What a model's chat template puts round the contents of a chat. Pure.

A template is rendered with a marker in the place of each content, and the result is cut at the
markers. So its text is known apart from the contents, which users send: it can be cached for each
frame of a chat, and only its own special tokens count as such.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from parrot_backend.engines.vllm.chat_frame import ChatFrame

#: Renders messages; the flag says whether the header of a reply follows, and the rest are tools
#: and further arguments.
Render = Callable[[list[dict[str, Any]], bool, dict[str, Any]], str]

#: White space that no template writes itself: if contents are trimmed, the result lacks it.
_PADDING = "\u2003"

#: Layouts of longer chats are not kept: a conversation that goes on has a new one each time.
_MAX_KEPT_MESSAGES = 512


class PromptError(ValueError):
    """A prompt that cannot be put into the model's form; the message says why."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a message's content.

    Attributes:
        message: Index of the message.
        trims_left: The template removes white space at the start of the content.
        trims_right: The same at its end.
        is_json: The template writes it as a JSON string; the quotes are the template's text.
    """

    message: int
    trims_left: bool
    trims_right: bool
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Literal:
    """Text in which no special token counts as one: it is the client's, not the template's."""

    text: str


Layout = tuple[str | Slot | Literal, ...]


class ChatTemplate:
    """A chat template, taken apart.

    Args:
        render: The template as a function; raises ``PromptError`` for chats that it refuses.
        special_texts: Texts of the tokenizer's special tokens.
    """

    def __init__(self, render: Render, special_texts: Sequence[str] = ()) -> None:
        self._render = render
        nonce = secrets.token_hex(8)
        # Escaping, quoting, a change of case or of the lines would all spoil the marker.
        self._marker = f"Parrot<\"&\\'\n{nonce}:{{}}>"
        start, end = self._marker.split("{}")
        starts = "|".join(re.escape(text) for text in (start, _as_json(start)))
        self._json_start = _as_json(start)
        self._pattern = re.compile(
            f"({_PADDING}?)({starts})([0-9]+){re.escape(end)}({_PADDING}?)",
        )
        self._special_texts = sorted(special_texts, key=len, reverse=True)
        # Nothing in it can be escaped: a description is quoted in all sorts of ways.
        stand_in = f"ParrotSpecial{nonce}N{{}}E"
        self._disarmings = [
            (special, stand_in.format(number)) for number, special in enumerate(self._special_texts)
        ]
        self._stand_ins = re.compile(stand_in.format("([0-9]+)"))
        self._kept_layout = lru_cache(maxsize=256)(self._layout)

    def layout(self, frame: ChatFrame, continues_last: bool) -> Layout:
        """Return the template's texts and the places of the contents, in order.

        Args:
            frame: All of the chat but the contents.
            continues_last: The reply goes on with the last message; else it is a new message.

        Raises:
            PromptError: The template refuses this chat, or does more to contents than place, trim
                and quote them.
        """
        if len(frame.messages) > _MAX_KEPT_MESSAGES:
            return self._layout(frame, continues_last)
        return self._kept_layout(frame, continues_last)

    def _layout(self, frame: ChatFrame, continues_last: bool) -> Layout:
        messages = self._disarmed(frame.template_messages(self._marked))
        options = self._disarmed(frame.template_options())
        cut = self._pattern.split(self._render(messages, not continues_last, options))
        texts, found = cut[::5], [int(index) for index in cut[3::5]]
        _check(frame, found)
        slots = [
            Slot(index, not before, not after, is_json=start == self._json_start)
            for before, start, index, after in zip(
                cut[1::5], cut[2::5], found, cut[4::5], strict=True
            )
        ]
        if any(slot.is_json for slot in slots) and _as_ascii(_PADDING) in "".join(texts):
            raise PromptError("the chat template escapes what is not ASCII; send a raw prompt")
        pieces: list[str | Slot] = [texts[0]]
        for slot, text in zip(slots, texts[1:], strict=True):
            pieces += [slot, text]
        if continues_last:
            pieces[-2:] = [_open_slot(slots, len(frame.messages) - 1)]
        return tuple(armed for piece in pieces for armed in self._armed(piece))

    def _marked(self, index: int) -> str:
        return f"{_PADDING}{self._marker.format(index)}{_PADDING}"

    def _disarmed(self, content: Any) -> Any:
        """Return messages or options with stand-ins for special tokens in the client's texts."""
        if isinstance(content, str):
            for special, stand_in in self._disarmings:
                content = content.replace(special, stand_in)
            return content
        if isinstance(content, dict):
            return {self._disarmed(k): self._disarmed(v) for k, v in content.items()}
        if isinstance(content, list):
            return [self._disarmed(item) for item in content]
        return content

    def _armed(self, piece: str | Slot) -> list[str | Slot | Literal]:
        if isinstance(piece, Slot):
            return [piece]
        cut = self._stand_ins.split(piece)
        pieces: list[str | Slot | Literal] = []
        for position, text in enumerate(cut):
            if position % 2:
                pieces.append(Literal(self._special_texts[int(text)]))
            elif text:
                pieces.append(text)
        return pieces


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _as_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _open_slot(slots: Sequence[Slot], last: int) -> Slot:
    if not slots or slots[-1].message != last or slots[-1].is_json:
        raise PromptError("the chat template does not put the last message last")
    return Slot(last, slots[-1].trims_left, trims_right=False)


def _check(frame: ChatFrame, found: Sequence[int]) -> None:
    times_found = Counter(found)
    for index, message in enumerate(frame.messages):
        times = times_found[index]
        # What is said beside a call of a tool is left out by some templates, on purpose.
        may_lack = bool(message.head.tool_calls)
        if times == 1 or (times == 0 and may_lack):
            continue
        does = "repeats" if times else "drops or changes"
        raise PromptError(
            f"the chat template {does} the content of message {index} ({message.role}); "
            "send a raw prompt instead"
        )
