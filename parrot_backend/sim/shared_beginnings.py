"""Prompts of a recorded run as pieces: shared where they were shared, and without their texts.

A recording has the texts of all prompts, so it tells exactly how long the beginnings are that
prompts have in common. Constant texts are cut where prompts part, and each piece gets a name; equal
names are equal pieces, and none tells anything of its text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parrot_backend.sim.program import Constant, Output, Piece

#: Prompts that have less in common share no block of KV memory; in characters.
_SHORTEST_SHARED_CHARS = 32


@dataclass(frozen=True, slots=True)
class RecordedPart:
    """One part of a prompt.

    Attributes:
        text: What it says.
        source: The variable that it is the value of, as it is; None for anything else.
    """

    text: str
    source: str | None = None


class PieceLengths:
    """Makes pieces of prompts.

    A piece is as many tokens long wherever it stands: as the first prompt with it tells by its own
    length in tokens and characters.

    Args:
        prompts: All prompts of a run.
    """

    def __init__(self, prompts: Iterable[Sequence[RecordedPart]]) -> None:
        self._cuts = _cuts_of({_text_of(prompt) for prompt in prompts})
        self._constants: dict[str, Constant] = {}

    def pieces(
        self,
        parts: Sequence[RecordedPart],
        prompt_tokens: int,
        made_tokens: Mapping[str, int],
        session: str,
    ) -> tuple[Piece, ...]:
        """Return the pieces of one of the prompts, in order.

        Args:
            parts: The prompt.
            prompt_tokens: Its length.
            made_tokens: Lengths of the outputs of its session's calls.
            session: Whose it is.

        Returns:
            The pieces; none if the lengths contradict each other.
        """
        cut = list(self._cut(parts, made_tokens))
        own_chars = sum(len(each) for each in cut if isinstance(each, str))
        read_tokens = sum(made_tokens[each.call] for each in cut if isinstance(each, Output))
        own_tokens = prompt_tokens - read_tokens
        if own_tokens < 0 or not (own_chars or cut):
            return ()
        per_char = own_tokens / max(1, own_chars)
        found = [self._known(each, per_char) if isinstance(each, str) else each for each in cut]
        left_tokens = own_tokens - sum(p.tokens for p in found if isinstance(p, Constant))
        return _stretched(found, left_tokens, session)

    def _cut(
        self, parts: Sequence[RecordedPart], made: Mapping[str, int]
    ) -> Iterator[str | Output]:
        """Yield texts and outputs of calls."""
        begin, cuts = 0, self._cuts[_text_of(parts)]
        for part in parts:
            end = begin + len(part.text)
            if part.source in made:
                assert part.source is not None
                yield Output(part.source)
            elif part.text:
                inside = [cut - begin for cut in cuts if begin < cut < end]
                for first, last in zip([0, *inside], [*inside, len(part.text)], strict=True):
                    yield part.text[first:last]
            begin = end

    def _known(self, text: str, tokens_per_char: float) -> Constant:
        constant = self._constants.get(text)
        if constant is None:
            tokens = max(1, round(len(text) * tokens_per_char))
            constant = self._constants[text] = Constant(f"text/{len(self._constants)}", tokens)
        return constant


def _stretched(pieces: Sequence[Piece], added_tokens: int, session: str) -> tuple[Piece, ...]:
    """Return pieces of which the last text is longer by so many tokens; none if that cannot be."""
    if not added_tokens:
        return tuple(pieces)
    for place in range(len(pieces) - 1, -1, -1):
        last = pieces[place]
        if isinstance(last, Constant) and last.tokens + added_tokens >= 1:
            longer = Constant(f"{last.key}/{session}", last.tokens + added_tokens)
            return (*pieces[:place], longer, *pieces[place + 1 :])
    return ()


def _text_of(prompt: Sequence[RecordedPart]) -> str:
    return "".join(part.text for part in prompt)


def _cuts_of(texts: set[str]) -> dict[str, list[int]]:
    """Return for each text at which lengths others part from it, in order."""
    ordered = sorted(texts)
    cuts = {text: set[int]() for text in ordered}
    for direction in (ordered, ordered[::-1]):
        open_cuts = list[int]()  # where earlier ones part from the present one, shortest first
        before = ""
        for text in direction:
            common = _num_common(before, text)
            while open_cuts and open_cuts[-1] > common:
                open_cuts.pop()
            if common >= _SHORTEST_SHARED_CHARS and (not open_cuts or open_cuts[-1] < common):
                open_cuts.append(common)
            cuts[text].update(open_cuts)
            before = text
    return {text: sorted(found) for text, found in cuts.items()}


def _num_common(left: str, right: str) -> int:
    """Return how many characters two texts begin with alike."""
    most = min(len(left), len(right))
    # By halves, for comparing slices is much faster than comparing characters one by one.
    return bisect_left(range(most), True, key=lambda last: left[: last + 1] != right[: last + 1])
