"""How long texts are in tokens: a rate that is learnt from finished requests."""

from __future__ import annotations

#: Weight of one finished request in the learnt rate.
_LEARNING_RATE = 0.1

#: Of a shorter prompt, what a chat template adds would count for too much.
_MIN_CHARS = 256

#: Tokens per character of any real text and tokenizer; a report beyond is not believed.
_RANGE = (0.05, 1.0)


class TokenRate:
    """Tokens per character.

    Attributes:
        value: The present estimate.
    """

    def __init__(self, first_estimate: float) -> None:
        self.value = first_estimate

    def learn(self, chars: int, tokens: int) -> None:
        """Learn from a prompt whose length in tokens is known."""
        if chars < _MIN_CHARS or not tokens:
            return
        least, most = _RANGE
        seen = min(most, max(least, tokens / chars))
        self.value += _LEARNING_RATE * (seen - self.value)
