"""``POST /v1/completions``: its request, as calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from parrot_backend import protocol as wire
from parrot_backend.server.openai.base import bad_field
from parrot_backend.server.openai.sampling import ChoiceFields, sampling_of, seeded

#: As OpenAI has it.
_DEFAULT_MAX_TOKENS = 16

_MAX_PROMPTS = 1024
_MAX_CHOICES = 2048


class CompletionRequest(ChoiceFields):
    """Body of the request; fields without an effect are in ``base``."""

    prompt: str | wire.Many[str | int | wire.Many[int]]
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)

    @property
    def num_choices(self) -> int:
        """How many choices there are of each prompt."""
        return self.n or 1


def prompts_of(request: CompletionRequest) -> tuple[str, ...]:
    """Return the prompts.

    Raises:
        RequestError: ``unsupported``: tokens; ``invalid_request``: none, or too many.
    """
    prompts = (request.prompt,) if isinstance(request.prompt, str) else request.prompt
    texts = tuple(prompt for prompt in prompts if isinstance(prompt, str))
    if len(texts) < len(prompts):
        message = "prompts of token ids are not supported; send texts"
        raise bad_field("prompt", message, "unsupported")
    if not 1 <= len(texts) <= _MAX_PROMPTS:
        raise bad_field("prompt", f"there are {len(texts)} prompts; send 1 to {_MAX_PROMPTS}")
    if len(texts) * request.num_choices > _MAX_CHOICES:
        message = f"there are {len(texts) * request.num_choices} choices, {_MAX_CHOICES} may be"
        raise bad_field("n", message)
    if not all(texts):
        raise bad_field("prompt", "a prompt is empty", "empty_prompt")
    return texts


def completions_to_calls(
    request: CompletionRequest, prompts: Sequence[str]
) -> tuple[wire.CallNode, ...]:
    """Return the calls: all choices of the first prompt, then those of the next.

    Raises:
        RequestError: ``invalid_request``: fields contradict each other.
    """
    if request.echo and request.logprobs is not None:
        message = "the prompt has no log probabilities; send echo without logprobs"
        raise bad_field("echo", message, "unsupported")
    max_tokens = _DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    sampling = sampling_of(request, request.response_format, max_tokens, request.logprobs)
    return tuple(
        wire.CallNode(
            name=(name := f"choice{at * request.num_choices + choice}"),
            prompt=(wire.TextSegment(text=prompt), wire.OutputSegment(variable=name)),
            sampling=seeded(sampling, request.seed, choice),
            model=request.model,
        )
        for at, prompt in enumerate(prompts)
        for choice in range(request.num_choices)
    )
