"""How one output is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.chat import ResponseFormat

#: What an output without a limit is taken for in accounts of memory; the default limit.
UNLIMITED_OUTPUT_TOKENS = 256

#: A limit is a bound, not a forecast: who asks for 4,096 tokens gets some hundred of them. An
#: output is taken for so many at most, or else few such calls would keep an engine to themselves.
EXPECTED_OUTPUT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one output; ranges are checked at the wire (``protocol.Sampling``).

    Attributes:
        max_tokens: Upper bound of generated tokens; None lets them fill the model's context.
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Number of candidates; 0 means all.
        min_p: Least probability relative to the best candidate, in [0, 1].
        seed: Seed of the request's own generator, or None.
        stop: Strings that end the output; they are not part of the value.
        min_tokens: Generate at least so many tokens.
        presence_penalty: In [-2, 2].
        frequency_penalty: In [-2, 2].
        repetition_penalty: Greater than 0; 1 is off.
        ignore_eos: Go on to ``max_tokens`` (for benchmarks).
        logprobs: How many of the likeliest tokens to tell at each place; None tells nothing.
        response_format: The form that the output must have, or None.
    """

    max_tokens: int | None = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_tokens: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    logprobs: int | None = None
    response_format: ResponseFormat | None = None

    def reserved_for(self, expected_tokens: int | None) -> int:
        """Return the tokens that an output is taken for in accounts of memory.

        Args:
            expected_tokens: What outputs of its kind hardly exceed, if that is known.
        """
        if self.max_tokens is None:
            return expected_tokens or UNLIMITED_OUTPUT_TOKENS
        if self.ignore_eos:
            return self.max_tokens
        return min(self.max_tokens, expected_tokens or EXPECTED_OUTPUT_TOKENS)

    def expected(self, mean_tokens: float | None) -> float:
        """Return how long an output will be on average.

        Args:
            mean_tokens: What is known of outputs of its kind; None takes what is reserved.
        """
        if mean_tokens is None or self.ignore_eos:
            return float(self.reserved_for(None))
        return mean_tokens if self.max_tokens is None else min(mean_tokens, self.max_tokens)
