"""What a step may compute beside its latency-sensitive decodes, and what was granted of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from parrot_backend.core.request_class import RequestClass
from parrot_backend.core.step_time import StepTimeModel


class PacedRequest(Protocol):
    """What pacing reads of a request.

    Attributes:
        request_class: What is wanted of it.
        tpot_s: Target time per output token.
        remaining_tokens: Tokens to compute now: 1 if it decodes, more for the rest of its prompt.
        context_tokens: Tokens computed already.
        held_since_s: Since when pacing holds it; set and cleared by pacing only.
    """

    @property
    def request_class(self) -> RequestClass: ...  # noqa: D102

    @property
    def tpot_s(self) -> float | None: ...  # noqa: D102

    @property
    def remaining_tokens(self) -> int: ...  # noqa: D102

    @property
    def context_tokens(self) -> int: ...  # noqa: D102

    held_since_s: float | None


class StepBudget:
    """What a step may take beyond its latency-sensitive decodes, and what was granted of it."""

    def __init__(
        self,
        model: StepTimeModel,
        min_chunk_tokens: int,
        base_s: float,
        budget_s: float,
        tokens: int,
    ) -> None:
        self.base_s = base_s
        self.tokens = tokens
        self._model = model
        self._min_chunk_tokens = min_chunk_tokens
        self._left_s = budget_s
        #: A prefill was cut short; whatever is granted after it, the engine would give to it.
        self._is_cut = False

    def limit(self, left_s: float) -> None:
        """Grant no more than so much from here on."""
        self._left_s = min(self._left_s, left_s)

    def add_decode(self, request: PacedRequest, *, regardless: bool) -> bool:
        """Grant a request its one token; return whether it fits, or is to run regardless."""
        cost_s = self._model.decode_cost_s(request.context_tokens)
        if cost_s > self._left_s and not regardless:
            return False
        self._take(1, cost_s)
        return True

    def add_prefills(self, requests: Sequence[PacedRequest], *, first_regardless: bool) -> int:
        """Grant requests the rest of their prompts in order, and to the last one what still fits.

        Args:
            requests: Those that compute their prompts.
            first_regardless: Whether the first gets the smallest chunk even if that does not fit.

        Returns:
            How many of them get something.
        """
        for number, request in enumerate(requests):
            tokens = _tokens(request)
            regardless = first_regardless and number == 0
            if not self._add_chunk(tokens, request.context_tokens, regardless=regardless):
                return number
        return len(requests)

    def add_whole(self, requests: Sequence[PacedRequest]) -> None:
        """Grant requests the rest of their prompts, however long that takes."""
        if not self._is_cut:
            self.tokens += sum(map(_tokens, requests))

    def add_new(self, *, regardless: bool) -> bool:
        """Grant a chunk to requests that are not known yet; return whether one fits."""
        fitting = self._model.prefill_tokens_within(self._left_s, 0)
        tokens = max(fitting, self._min_chunk_tokens)
        return self._add_chunk(tokens, 0, regardless=regardless)

    def _add_chunk(self, tokens: int, context_tokens: int, *, regardless: bool) -> bool:
        """Grant as much of a prompt as fits, if that is not too little."""
        if self._is_cut:
            return False
        chunk, cost_s = tokens, self._model.prefill_cost_s(tokens, context_tokens)
        if cost_s > self._left_s:
            least = min(tokens, self._min_chunk_tokens)
            chunk = self._model.prefill_tokens_within(self._left_s, context_tokens)
            if chunk < least:
                if not regardless:
                    return False
                chunk = least
            cost_s = self._model.prefill_cost_s(chunk, context_tokens)
        self._is_cut = chunk < tokens
        self._take(chunk, cost_s)
        return True

    def _take(self, tokens: int, cost_s: float) -> None:
        self.tokens += tokens
        self._left_s = max(0.0, self._left_s - cost_s)


def _tokens(request: PacedRequest) -> int:
    return max(1, request.remaining_tokens)
