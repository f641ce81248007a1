"""The OpenAI API as far as an engine needs it: parts to request bodies, chunks and errors back.

Pure. Requests are streamed; the last chunk tells the usage. Parameters that only vLLM and its kin
know are sent when they differ from what the API does without them, so that a strict server accepts
all other requests.

A chat whose last message is the assistant's and has text is sent with ``continue_final_message``,
an extension of vLLM and SGLang: the server goes on with that message instead of opening a new one.
A server that refuses unknown fields, as OpenAI's own does, refuses such a chat. The same goes for
``chat_template_kwargs``, and for patterns, choices and grammars, which are sent as
``structured_outputs``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parrot_backend.core.chat import ChatOptions, ResponseFormat, TokenLogprob, TopLogprob
from parrot_backend.core.events import RequestUsage
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.chat_history import is_chat, open_messages, tool_choice_of, tools_of

_DEFAULTS = Sampling()

#: Parameters of OpenAI's API, and those that vLLM and SGLang add.
_STANDARD = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
_EXTENSIONS = ("top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens")

_MAX_MESSAGE_CHARS = 500

#: Servers name what they refuse in words of their own.
_FORMAT_WORDS = ("response_format", "structured_outputs", "json schema", "grammar", "regex")


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of one call of a tool; only its first piece has an id and a name."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of a stream says; None and empty where it says nothing."""

    text: str = ""
    reasoning: str = ""
    call_deltas: tuple[CallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
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
    if not is_chat(request.parts):
        body["prompt"] = "".join(part.text for part in request.parts)
        if request.sampling.logprobs is not None:
            body["logprobs"] = request.sampling.logprobs
        return "completions", body
    messages, continues_last = open_messages(request.parts)
    if continues_last:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.sampling.logprobs}
    return "chat/completions", {**body, **_chat_fields(request.chat), "messages": messages}


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
        delta = choice.get("delta") or {"content": choice.get("text")}
        return Chunk(
            text=delta.get("content") or "",
            # vLLM has renamed it; others keep the old name.
            reasoning=delta.get("reasoning") or delta.get("reasoning_content") or "",
            call_deltas=tuple(map(_call_delta, delta.get("tool_calls") or ())),
            logprobs=_logprobs(choice.get("logprobs")),
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
    if any(word in lowered for word in _FORMAT_WORDS):
        return Refusal("invalid_format", message)
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
    if sampling.response_format is not None:
        fields |= _format_fields(sampling.response_format)
    return fields


def _format_fields(wanted: ResponseFormat) -> dict[str, Any]:
    """Return a form of output: as OpenAI has it, or else as an extension of vLLM's."""
    match wanted.kind:
        case "json_schema":
            schema = {"name": "output", "schema": json.loads(wanted.text), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "choice":
            return {"structured_outputs": {"choice": json.loads(wanted.text)}}
        case "regex" | "grammar":
            return {"structured_outputs": {wanted.kind: wanted.text}}


def _chat_fields(chat: ChatOptions) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if chat.tools:
        fields["tools"] = tools_of(chat)
        fields["tool_choice"] = tool_choice_of(chat.tool_choice)
        if not chat.parallel_tool_calls:
            fields["parallel_tool_calls"] = False
    if chat.template_kwargs:
        fields["chat_template_kwargs"] = dict(chat.template_kwargs)
    return fields


def _call_delta(delta: dict[str, Any]) -> CallDelta:
    function = delta.get("function") or {}
    return CallDelta(
        index=delta.get("index") or 0,
        id=delta.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )


def _logprobs(content: dict[str, Any] | None) -> tuple[TokenLogprob, ...]:
    """Return the log probabilities of a chunk, of a chat or else of a completion."""
    if content is None:
        return ()
    if "tokens" not in content:
        return tuple(
            TokenLogprob(one["token"], one["logprob"], _tops(one.get("top_logprobs") or ()))
            for one in content.get("content") or ()
        )
    tops = content.get("top_logprobs") or [None] * len(content["tokens"])
    return tuple(
        TokenLogprob(token, logprob, _sorted_tops(top or {}))
        for token, logprob, top in zip(
            content["tokens"], content["token_logprobs"], tops, strict=True
        )
    )


def _tops(listed: Sequence[dict[str, Any]]) -> tuple[TopLogprob, ...]:
    return tuple(TopLogprob(one["token"], one["logprob"]) for one in listed)


def _sorted_tops(by_token: dict[str, float]) -> tuple[TopLogprob, ...]:
    pairs = sorted(by_token.items(), key=lambda pair: -pair[1])
    return tuple(TopLogprob(token, logprob) for token, logprob in pairs)


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
