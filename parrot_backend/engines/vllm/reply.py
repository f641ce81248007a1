"""One reply of vLLM: steps in, outputs of the engine seam out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from parrot_backend.core.chat import NO_DETAILS, OutputDetails, TokenLogprob
from parrot_backend.core.events import (
    RequestFailed,
    RequestFinished,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.engines.base import AttemptOutput, EngineRequest
from parrot_backend.vllm_compat.records import Piece, Step

#: Token ids to text, without special tokens.
Decode = Callable[[Sequence[int]], str]


class Parser(Protocol):
    """Takes an output apart; see ``vllm_compat.output_parser``."""

    def add(self, text: str, token_ids: Sequence[int], *, is_last: bool) -> list[Piece]:
        """Take in more of the output; return what is certain to be text or reasoning."""
        ...

    def end(self, *, is_cut: bool) -> tuple[list[Piece], OutputDetails]:
        """Return what was held back, and what there is beside the text."""
        ...


class Reply:
    """Collects the steps of one attempt.

    Args:
        request: The attempt.
        prompt_tokens: Length of its prompt.
        decode: The model's tokenizer.
        parser: Takes the output apart; None if it is all text.
    """

    def __init__(
        self,
        request: EngineRequest,
        prompt_tokens: int,
        decode: Decode,
        parser: Parser | None = None,
    ) -> None:
        self._attempt = request.attempt
        self._sampling = request.sampling
        self._has_form = request.sampling.response_format is not None or request.chat.must_call
        self._prompt_tokens = prompt_tokens
        self._decode = decode
        self._parser = parser
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._num_told_logprobs = 0
        self._num_tellable_logprobs = 0

    @property
    def has_begun(self) -> bool:
        """Whether any token has come."""
        return bool(self._token_ids)

    def lengthen_prompt(self, num_tokens: int) -> None:
        """Note that tokens were put into the prompt."""
        self._prompt_tokens += num_tokens

    def add(self, step: Step) -> list[AttemptOutput]:
        """Return what there is to say after a step."""
        self._token_ids += step.token_ids
        if step.finish_reason in ("abort", "error"):
            return [self._failed(step.finish_reason)]
        self._logprobs += step.logprobs
        self._num_tellable_logprobs = self._num_logprobs_of_value(step)
        said = self._say(self._pieces(step), len(step.token_ids))
        if step.finish_reason is not None:
            said += self._finished(step, step.finish_reason)
        return said

    def _pieces(self, step: Step) -> list[Piece]:
        if self._parser is None:
            return [Piece(step.text)] if step.text else []
        is_last = step.finish_reason is not None
        pieces = self._parser.add(step.text, step.token_ids, is_last=is_last)
        # A call of a tool gives no text for long: say that the engine lives.
        return pieces or [Piece("")]

    def _say(self, pieces: Sequence[Piece], num_tokens: int) -> list[AttemptOutput]:
        said: list[AttemptOutput] = []
        for piece in pieces:
            if not piece.is_reasoning:
                self._texts.append(piece.text)
            count = 0 if said else num_tokens
            logprobs = self._untold_logprobs() if piece.text else ()
            said.append(
                TokensGenerated(self._attempt, piece.text, count, piece.is_reasoning, logprobs)
            )
        return said

    def _untold_logprobs(self) -> tuple[TokenLogprob, ...]:
        untold = tuple(self._logprobs[self._num_told_logprobs : self._num_tellable_logprobs])
        self._num_told_logprobs = self._num_tellable_logprobs
        return untold

    def _failed(self, reason: str) -> RequestFailed:
        # One token is the one that the grammar refused: it leads nowhere, at any time.
        if reason == "error" and self._has_form and len(self._token_ids) <= 1:
            message = "vLLM cannot write anything in the form that the output shall have"
            return RequestFailed(self._attempt, "invalid_format", message)
        message = f"vLLM ended the request itself: {reason}"
        return RequestFailed(self._attempt, "engine_failed", message, is_retryable=True)

    def _finished(self, step: Step, finish_reason: str) -> list[AttemptOutput]:
        said: list[AttemptOutput] = []
        details = NO_DETAILS
        if self._parser is not None:
            rest, details = self._parser.end(is_cut=finish_reason == "length")
            said = self._say(rest, 0)
        text = "".join(self._texts)
        usage = RequestUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._token_ids),
            cached_tokens=step.cached_tokens,
            engine_s=step.engine_s,
            decode_s=step.decode_s,
        )
        ids = self._ids_of_value(text, step, finish_reason)
        has_calls = finish_reason == "stop" and details.tool_calls
        finished = RequestFinished(
            attempt=self._attempt,
            text=text,
            token_ids=None if ids is None else tuple(ids),
            finish_reason="tool_calls" if has_calls else finish_reason,
            usage=usage,
            details=replace(details, logprobs=self._logprobs_of_value()),
        )
        return [*said, finished]

    def _num_logprobs_of_value(self, step: Step) -> int:
        # The last token may be one that only ended the output; it is not told.
        has_end = step.finish_reason == "stop" and not isinstance(step.stop_reason, str)
        return max(0, len(self._logprobs) - has_end)

    def _logprobs_of_value(self) -> tuple[TokenLogprob, ...] | None:
        if self._sampling.logprobs is None:
            return None
        return tuple(self._logprobs[: self._num_tellable_logprobs])

    def _ids_of_value(self, text: str, step: Step, finish_reason: str) -> Sequence[int] | None:
        if self._parser is not None:
            return None  # there may be more in the output than its text
        return self._ids_of_text(text, step) if finish_reason == "stop" else self._token_ids

    def _ids_of_text(self, text: str, step: Step) -> Sequence[int] | None:
        """Return the ids that make up the text alone, without what ended it.

        A stop string may begin within a token; then no ids stand for the text.
        """
        if not isinstance(step.stop_reason, str):
            return self._token_ids[:-1]
        for num_ids in range(len(self._token_ids), -1, -1):
            decoded = self._decode(self._token_ids[:num_ids])
            if len(decoded) <= len(text):
                return self._token_ids[:num_ids] if decoded == text else None
        return None
