"""Prompts: what the client declares (segments) and what an engine receives (parts).

A prompt is a flat sequence. In a chat prompt a :class:`Role` opens each message; in a raw prompt
there is none. Segment boundaries are where prefixes are hashed and where tokenisation is cut, so
two prompts with equal leading parts share leading token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from parrot_backend.core.chat import NO_HEAD, MessageHead
from parrot_backend.core.ids import VariableId
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import Transform


@dataclass(frozen=True, slots=True)
class Role:
    """Opens a chat message of the given role."""

    role: str
    head: MessageHead = NO_HEAD


@dataclass(frozen=True, slots=True)
class Text:
    """Constant text."""

    text: str


@dataclass(frozen=True, slots=True)
class Input:
    """The value of a variable, after its transforms in order."""

    variable: VariableId
    transforms: tuple[Transform, ...] = ()


@dataclass(frozen=True, slots=True)
class InPlace:
    """An earlier output of the same call, where it was generated."""

    variable: VariableId


@dataclass(frozen=True, slots=True)
class Output:
    """The place where a variable is generated."""

    variable: VariableId
    sampling: Sampling


Segment = Role | Text | Input | Output

#: What may stand before an output once a call is split into requests.
PromptSegment = Role | Text | Input | InPlace


class PartKind(Enum):
    """What a resolved part of a prompt came from."""

    ROLE = "role"
    CONSTANT = "constant"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One resolved part of a prompt.

    Attributes:
        kind: Where it came from. For ``ROLE`` the text is the role's name.
        text: The text itself.
        token_ids: Set when this text was generated at exactly this place (an earlier output of the
            same call); the engine that made them should use them as they are, so that its KV
            cache of prompt and output stays valid.
        head: For ``ROLE``, what else the message has.
    """

    kind: PartKind
    text: str
    token_ids: tuple[int, ...] | None = None
    head: MessageHead = NO_HEAD

    @property
    def num_chars(self) -> int:
        """Length of all its text."""
        return len(self.text) + len(self.head.text)


def chars_of(parts: Sequence[PromptPart]) -> int:
    """Return the length of all text of a prompt."""
    return sum([len(part.text) + len(part.head.text) for part in parts])
