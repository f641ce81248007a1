"""What the scripted engine says: rendered prompt and sampling in, words out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from parrot_backend.core.chat import NO_DETAILS, OutputDetails
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling

#: Replies have so many words by themselves: from the first, less than the sum of both.
_LEAST_WORDS, _WORDS_RANGE = 8, 25

_VOCABULARY = """
    able about above acid again agree along amber angle apple arrow basin beach birch blade bloom
    brave bread brick cabin canal cedar chalk cloud coast coral crane creek delta eagle earth
    ember fable fern field flint frost glass grain grove harbor hazel heron honey ivory island
    lemon linen maple marsh meadow olive opal orchid pearl pine plain quartz raven ridge river
"""
WORDS = _VOCABULARY.split()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, decided before its first word is said; one piece is one token.

    Attributes:
        pieces: The text.
        finish_reason: Why it ends.
        hidden_pieces: What is generated and is no text: a call of a tool.
        details: What is told beside the text.
    """

    pieces: tuple[str, ...]
    finish_reason: str
    hidden_pieces: tuple[str, ...] = ()
    details: OutputDetails = NO_DETAILS

    @property
    def num_tokens(self) -> int:
        """How many tokens it takes."""
        return len(self.pieces) + len(self.hidden_pieces)


def render(parts: Sequence[PromptPart]) -> str:
    """Return the prompt as text; a chat has one line ``<|role|>text`` for each message.

    An assistant's message that has no text yet is what the reply will be; it gets no line.
    """
    if parts and parts[-1].kind is PartKind.ROLE and parts[-1].text == "assistant":
        parts = parts[:-1]
    texts = [
        f"\n<|{part.text}|>{part.head.text}" if part.kind is PartKind.ROLE else part.text
        for part in parts
    ]
    is_chat = bool(parts) and parts[0].kind is PartKind.ROLE
    return "".join(texts)[1 if is_chat else 0 :]


def make_reply(prompt: str, sampling: Sampling, max_tokens: int) -> Reply:
    """Return the reply to a rendered prompt: the prompt's hash, then words.

    The words depend on the prompt and on how candidates are drawn (temperature, seed, ...); the
    limits on length only cut them.
    """
    digest = blake2b(prompt.encode()).digest()
    drawing = (
        f"{sampling.temperature} {sampling.seed} {sampling.top_p} {sampling.top_k} "
        f"{sampling.min_p} {sampling.presence_penalty} {sampling.frequency_penalty} "
        f"{sampling.repetition_penalty}"
    )
    choice = blake2b(drawing.encode(), key=digest).digest()
    num_words = max(_LEAST_WORDS + choice[0] % _WORDS_RANGE, sampling.min_tokens)
    if sampling.ignore_eos or num_words > max_tokens:
        num_words = max_tokens
    words = [
        " " + WORDS[(choice[i % len(choice)] + i // len(choice)) % len(WORDS)]
        for i in range(1, num_words)
    ]
    pieces = (digest[:6].hex(), *words)
    is_cut = sampling.ignore_eos or num_words == max_tokens
    cut = cut_at_stop(pieces, sampling)
    return cut or Reply(pieces, "length" if is_cut else "stop")


def cut_at_stop(pieces: Sequence[str], sampling: Sampling) -> Reply | None:
    """Return the reply up to the first stop string after ``min_tokens``, or None without one."""
    text = "".join(pieces)
    start = len("".join(pieces[: sampling.min_tokens]))
    found = [at for stop in sampling.stop if (at := text.find(stop, start)) >= 0]
    if not found:
        return None
    kept, left = [], min(found)
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return Reply(tuple(kept), "stop")
