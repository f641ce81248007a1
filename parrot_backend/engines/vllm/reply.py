"""One reply of vLLM: steps in, outputs of the engine seam out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parrot_backend.core.events import (
    RequestFailed,
    RequestFinished,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId
from parrot_backend.engines.base import AttemptOutput
from parrot_backend.vllm_compat.records import Step

#: Token ids to text, without special tokens.
Decode = Callable[[Sequence[int]], str]


class Reply:
    """Collects the steps of one attempt.

    Args:
        attempt: The attempt.
        prompt_tokens: Length of its prompt.
        decode: The model's tokenizer.
    """

    def __init__(self, attempt: AttemptId, prompt_tokens: int, decode: Decode) -> None:
        self._attempt = attempt
        self._prompt_tokens = prompt_tokens
        self._decode = decode
        self._texts: list[str] = []
        self._token_ids: list[int] = []

    @property
    def has_begun(self) -> bool:
        """Whether any token has come."""
        return bool(self._token_ids)

    def lengthen_prompt(self, num_tokens: int) -> None:
        """Note that tokens were put into the prompt."""
        self._prompt_tokens += num_tokens

    def add(self, step: Step) -> list[AttemptOutput]:
        """Return what there is to say after a step."""
        said: list[AttemptOutput] = []
        self._token_ids += step.token_ids
        if step.text:
            self._texts.append(step.text)
            said.append(TokensGenerated(self._attempt, step.text, len(step.token_ids)))
        if step.finish_reason in ("abort", "error"):
            message = f"vLLM ended the request itself: {step.finish_reason}"
            said.append(RequestFailed(self._attempt, "engine_failed", message, is_retryable=True))
        elif step.finish_reason is not None:
            said.append(self._finished(step, step.finish_reason))
        return said

    def _finished(self, step: Step, finish_reason: str) -> RequestFinished:
        text = "".join(self._texts)
        usage = RequestUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._token_ids),
            cached_tokens=step.cached_tokens,
            engine_s=step.engine_s,
        )
        ids = self._ids_of_text(text, step) if finish_reason == "stop" else self._token_ids
        return RequestFinished(
            attempt=self._attempt,
            text=text,
            token_ids=None if ids is None else tuple(ids),
            finish_reason=finish_reason,
            usage=usage,
        )

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
