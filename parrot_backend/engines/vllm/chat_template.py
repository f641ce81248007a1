"""What a model's chat template puts round the messages of a chat. Pure.

A template is rendered with a marker in the place of each content, and the result is cut at the
markers. So its text is known apart from the contents, which users send: it can be cached for each
sequence of roles, and only its own special tokens count as such.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

#: Renders messages; the flag says whether the header of a reply follows.
Render = Callable[[list[dict[str, str]], bool], str]

#: White space that no template writes itself: if contents are trimmed, the result lacks it.
_PADDING = "\u2003"


class PromptError(ValueError):
    """A prompt that cannot be put into the model's form; the message says why."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a message's content.

    Attributes:
        message: Index of the message.
        trims_left: The template removes white space at the start of the content.
        trims_right: The same at its end.
    """

    message: int
    trims_left: bool
    trims_right: bool


class ChatTemplate:
    """A chat template, taken apart.

    Args:
        render: The template as a function; raises ``PromptError`` for roles that it refuses.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        nonce = secrets.token_hex(8)
        # Escaping, quoting, a change of case or of the lines would all spoil the marker.
        self._marker = f"Parrot<\"&\\'\n{nonce}:{{}}>"
        start, end = map(re.escape, self._marker.split("{}"))
        self._pattern = re.compile(f"({_PADDING}?){start}([0-9]+){end}({_PADDING}?)")
        self.layout = lru_cache(maxsize=256)(self._layout)

    def _layout(self, roles: tuple[str, ...], continues_last: bool) -> tuple[str | Slot, ...]:
        """Return the template's texts and the places of the contents, in order.

        Args:
            roles: Role of each message.
            continues_last: The reply goes on with the last message; else it is a new message.

        Raises:
            PromptError: The template refuses these roles, or does more to contents than place and
                trim them.
        """
        messages = [
            {"role": role, "content": f"{_PADDING}{self._marker.format(i)}{_PADDING}"}
            for i, role in enumerate(roles)
        ]
        cut = self._pattern.split(self._render(messages, not continues_last))
        texts, found = cut[::4], [int(index) for index in cut[2::4]]
        _check(roles, found)
        slots = [
            Slot(index, trims_left=not before, trims_right=not after)
            for before, index, after in zip(cut[1::4], found, cut[3::4], strict=True)
        ]
        pieces: list[str | Slot] = [texts[0]]
        for slot, text in zip(slots, texts[1:], strict=True):
            pieces += [slot, text]
        if continues_last:
            if found[-1] != len(roles) - 1:
                raise PromptError("the chat template does not put the last message last")
            pieces[-2:] = [Slot(found[-1], slots[-1].trims_left, trims_right=False)]
        return tuple(piece for piece in pieces if piece != "")


def _check(roles: Sequence[str], found: Sequence[int]) -> None:
    for index, role in enumerate(roles):
        times = found.count(index)
        if times != 1:
            does = "repeats" if times else "drops or changes"
            raise PromptError(
                f"the chat template {does} the content of message {index} ({role}); "
                "send a raw prompt instead"
            )
