"""What vLLM tells, in words of our own. Pure; ``compat`` fills these in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_backend.core.chat import TokenLogprob


class CoreDead(Exception):  # noqa: N818 - a fact about the engine, named as such
    """The process that computes has ended, or cannot go on."""


class Rejected(Exception):  # noqa: N818 - a fact about the request, named as such
    """vLLM does not take a request.

    Attributes:
        code: Code for ``RequestFailed``.
        is_retryable: Whether it may take it at another time.
    """

    def __init__(self, code: str, message: str, is_retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_retryable = is_retryable


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine can hold and do at once, in tokens.

    Attributes:
        max_model_len: Longest prompt plus output.
        capacity_tokens: What the KV cache holds.
        block_tokens: One KV block.
        max_step_tokens: Prompt and output tokens of one step at most.
    """

    max_model_len: int
    capacity_tokens: int
    block_tokens: int
    max_step_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one request in one or more steps of the engine.

    Attributes:
        text: New text.
        token_ids: New tokens.
        finish_reason: Set in the last step.
        stop_reason: The stop string or token that ended it; None at the end-of-text token.
        cached_tokens: Tokens of the prompt that came from the prefix cache.
        engine_s: Time from the engine's queue to its last token so far.
        logprobs: Of the new tokens, if they were asked for.
        decode_s: The part of it since the first token.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None
    stop_reason: str | int | None
    cached_tokens: int
    engine_s: float
    logprobs: Sequence[TokenLogprob] = ()
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an output: of its text, or of the reasoning before it."""

    text: str
    is_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Constraint:
    """What vLLM is told of an output beside how to sample it.

    Attributes:
        structured: vLLM's ``StructuredOutputsParams``, or None.
        skips_special_tokens: Whether texts are without special tokens.
        reasoning: Arguments of ``generate`` on when reasoning ends and the constraint begins.
    """

    structured: Any = None
    skips_special_tokens: bool = True
    reasoning: Mapping[str, Any] = field(default_factory=dict)


UNCONSTRAINED = Constraint()


class LoadRecord:
    """The engine's load as its own statistics tell it after each step.

    Args:
        progress: Called after each step in which a request got tokens.
    """

    def __init__(self, progress: Callable[[], None] = lambda: None) -> None:
        self.progress = progress
        self.running = 0
        self.waiting = 0
        self.kv_usage = 0.0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
