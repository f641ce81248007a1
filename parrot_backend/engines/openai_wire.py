"""The OpenAI API as far as an engine needs it: parts to request bodies, chunks and errors back.

Pure. Requests are streamed; the last chunk tells the usage. Parameters that only vLLM and its kin
know are sent when they differ from what the API does without them, so that a strict server accepts
all other requests.

A chat whose last message is the assistant's and has text is sent with ``continue_final_message``,
an extension of vLLM and SGLang: the server goes on with that message instead of opening a new one.
A server that refuses unknown fields, as OpenAI's own does, refuses such a chat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parrot_backend.core.events import RequestUsage
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest

_DEFAULTS = Sampling()

#: Parameters of OpenAI's API, and those that vLLM and SGLang add.
_STANDARD = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
_EXTENSIONS = ("top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens")

_MAX_MESSAGE_CHARS = 500


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of a stream says; None and empty where it says nothing."""

    text: str = ""
    finish_reason: str | None = None
    usage: RequestUsage | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a server did not run a request.

    Attributes:
        code: Code for ``RequestFailed``.
        message: One sentence for a person.
        is_retryable: Whether another try may succeed.
        room_tokens: Output tokens that would have fitted, when the server tells.
    """

    code: str
    message: str
    is_retryable: bool = False
    room_tokens: int | None = None


def path_and_body(
    request: EngineRequest, model: str, max_tokens: int, sends_cache_salt: bool
) -> tuple[str, dict[str, Any]]:
    """Return the path below the base URL, and the body of the request."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling_fields(request.sampling, max_tokens),
    }
    if sends_cache_salt and request.cache_salt is not None:
        body["cache_salt"] = request.cache_salt
    if not request.parts or request.parts[0].kind is not PartKind.ROLE:
        body["prompt"] = "".join(part.text for part in request.parts)
        return "completions", body
    messages = _messages(request.parts)
    if messages[-1]["role"] == "assistant":
        if messages[-1]["content"]:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            messages.pop()
    body["messages"] = messages
    return "chat/completions", body


def parse_chunk(data: str) -> Chunk:
    """Return what one event of the stream says.

    Raises:
        ValueError: It is not the JSON of a completion chunk.
    """
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            return Chunk(error=_error_message(chunk))
        usage = chunk.get("usage")
        choices = chunk.get("choices") or [{}]
        choice = choices[0]
        text = choice["delta"].get("content") if "delta" in choice else choice.get("text")
        return Chunk(
            text=text or "",
            finish_reason=choice.get("finish_reason"),
            usage=None if usage is None else _usage(usage),
        )
    except (AttributeError, KeyError, TypeError) as exc:
        raise ValueError(f"not a completion chunk: {data[:_MAX_MESSAGE_CHARS]}") from exc


def refusal(status: int, body: str) -> Refusal:
    """Return what a reply with an error status means."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    message = f"HTTP {status}: {_error_message(content) or body[:_MAX_MESSAGE_CHARS]}"
    lowered = message.lower()
    if status >= 500 or status in (408, 409, 429):
        return Refusal("engine_failed", message, is_retryable=True)
    if "context_length_exceeded" in body or "context length" in lowered:
        return Refusal("prompt_too_long", message, room_tokens=_room_tokens(message))
    if status == 404 and "model" in lowered:
        return Refusal("unknown_model", message)
    return Refusal("engine_rejected", message)


def _sampling_fields(sampling: Sampling, max_tokens: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"max_tokens": max_tokens}
    for name in (*_STANDARD, *_EXTENSIONS):
        value = getattr(sampling, name)
        if value != getattr(_DEFAULTS, name):
            fields[name] = value
    if "min_tokens" in fields:
        fields["min_tokens"] = min(sampling.min_tokens, max_tokens)
    # Models may bring a default temperature of their own, and greedy must stay greedy.
    fields["temperature"] = sampling.temperature
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    return fields


def _messages(parts: Sequence[PromptPart]) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = []
    for part in parts:
        if part.kind is PartKind.ROLE:
            messages.append({"role": part.text, "content": ""})
        else:
            messages[-1]["content"] += part.text
    return messages


def _usage(usage: dict[str, Any]) -> RequestUsage:
    details = usage.get("prompt_tokens_details") or {}
    return RequestUsage(
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
    )


def _error_message(content: Any) -> str:
    """Return the message of an error body in the form of OpenAI or of older vLLM servers."""
    if not isinstance(content, dict):
        return ""
    error = content.get("error", content)
    message = error.get("message", "") if isinstance(error, dict) else error
    return str(message)[:_MAX_MESSAGE_CHARS]


def _room_tokens(message: str) -> int | None:
    """Return the room for output in a message on the context length, None if it does not tell.

    OpenAI: "maximum context length is 4097 tokens. However, you requested 5000 tokens (1000 in the
    messages, 4000 in the completion)". SGLang: "maximum context length of 8192 tokens. You
    requested a total of 9000 tokens: 5000 tokens from the input messages and 4000 tokens for the
    completion".
    """
    limit = re.search(r"maximum context length (?:is|of) (\d+)", message)
    prompt = re.search(r"(\d+) (?:tokens )?(?:in|from) the (?:input |messages|prompt)", message)
    if limit is None or prompt is None:
        return None
    return int(limit[1]) - int(prompt[1])
