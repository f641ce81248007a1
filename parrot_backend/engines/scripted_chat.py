"""What the scripted engine does with tools, forms of outputs and log probabilities. Pure.

Whether it calls a tool:

* ``required`` and a named tool: always, the first or the named one.
* ``auto``: if the last user's message has the name of a tool with ``(`` after it, and no tool's
  message follows; the first such tool.

Arguments and JSON outputs follow the schema (``scripted_json``). Of choices it takes one, and a
regular expression must be one that means itself alone. Grammars are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import count

from parrot_backend.core.chat import (
    ChatOptions,
    NamedTool,
    OutputDetails,
    ResponseFormat,
    TokenLogprob,
    Tool,
    ToolCall,
    TopLogprob,
)
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.scripted_json import SchemaError, make_example
from parrot_backend.engines.scripted_reply import WORDS, Reply, cut_at_stop, make_reply, render


class FormatError(ValueError):
    """A form of output that the scripted engine cannot make; the message says why."""


def make_chat_reply(
    parts: Sequence[PromptPart], chat: ChatOptions, sampling: Sampling, max_tokens: int
) -> Reply:
    """Return the reply to a prompt.

    Raises:
        FormatError: The form of the output, or of a tool's arguments, cannot be met.
    """
    prompt = chat.prompt_text + render(parts)
    tool = _chosen_tool(parts, chat)
    if tool is not None:
        reply = _call(tool, prompt, max_tokens)
    elif sampling.response_format is not None:
        pieces = _pieces(_formatted(sampling.response_format, prompt))
        kept = pieces[:max_tokens]
        reason = "stop" if len(kept) == len(pieces) else "length"
        reply = cut_at_stop(kept, sampling) or Reply(kept, reason)
    else:
        reply = make_reply(prompt, sampling, max_tokens)
    if sampling.logprobs is None:
        return reply
    spoken = reply.pieces + reply.hidden_pieces
    logprobs = tuple(_logprob(piece, sampling.logprobs) for piece in spoken)
    return replace(reply, details=replace(reply.details, logprobs=logprobs))


def _chosen_tool(parts: Sequence[PromptPart], chat: ChatOptions) -> Tool | None:
    if not chat.may_call:
        return None
    if isinstance(chat.tool_choice, NamedTool):
        name = chat.tool_choice.name
        return next(tool for tool in chat.tools if tool.name == name)
    if chat.tool_choice == "required":
        return chat.tools[0]
    asked = _last_question(parts)
    return next((tool for tool in chat.tools if f"{tool.name}(" in asked), None)


def _last_question(parts: Sequence[PromptPart]) -> str:
    """Return the last user's message; empty if it has been answered by a tool."""
    role, text = "", ""
    for part in parts:
        if part.kind is PartKind.ROLE:
            role = part.text
            text = "" if role in ("user", "tool") else text
        elif role == "user":
            text += part.text
    return text


def _call(tool: Tool, prompt: str, max_tokens: int) -> Reply:
    arguments = _json_for(json.loads(tool.parameters), prompt)
    pieces = _pieces(arguments)
    kept = pieces[:max_tokens]
    digest = blake2b(prompt.encode(), digest_size=8).hexdigest()
    call = ToolCall(f"call-{digest}", tool.name, "".join(kept))
    reason = "tool_calls" if len(kept) == len(pieces) else "length"
    return Reply((), reason, kept, OutputDetails(tool_calls=(call,)))


def _formatted(wanted: ResponseFormat, prompt: str) -> str:
    match wanted.kind:
        case "json_schema":
            return _json_for(json.loads(wanted.text), prompt)
        case "json_object":
            return _json_for({"properties": {"answer": {}}}, prompt)
        case "choice":
            choices: list[str] = json.loads(wanted.text)
            return choices[blake2b(prompt.encode()).digest()[0] % len(choices)]
        case "regex" if re.escape(wanted.text) == wanted.text:
            return wanted.text
    raise FormatError(f"the scripted engine cannot follow this {wanted.kind}")


def _json_for(schema: object, prompt: str) -> str:
    try:
        return json.dumps(make_example(schema, _words(prompt)), ensure_ascii=False)
    except (SchemaError, TypeError, ValueError) as exc:
        raise FormatError(str(exc)) from exc


def _words(prompt: str) -> Callable[[], str]:
    start = int.from_bytes(blake2b(prompt.encode(), digest_size=4).digest())
    numbers = count(start)
    return lambda: WORDS[next(numbers) % len(WORDS)]


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\s*\S+|\s+$", text))


def _logprob(piece: str, num_top: int) -> TokenLogprob:
    first = -0.1 * (1 + len(piece) % 5)
    others = [word for word in WORDS if word != piece][: max(0, num_top - 1)]
    likeliest = (piece, *others)[:num_top]
    top = (TopLogprob(token, first - rank) for rank, token in enumerate(likeliest))
    return TokenLogprob(piece, first, tuple(top))
