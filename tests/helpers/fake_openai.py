"""A server that speaks OpenAI's API as ``vllm serve`` does, with scripted replies and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from parrot_backend.core.chat import (
    ChatOptions,
    MessageHead,
    NamedTool,
    ResponseFormat,
    TokenLogprob,
    Tool,
    ToolCall,
)
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.scripted_chat import FormatError, make_chat_reply
from parrot_backend.engines.scripted_reply import Reply, render

_SAMPLING_NAMES = {field.name for field in fields(Sampling)} - {"logprobs", "response_format"}


class ConnectionCutError(Exception):
    """The connection breaks."""


@dataclass
class FakeOpenAI:
    """The server. Set an attribute to change what it does next.

    Attributes:
        models: What it lists.
        max_model_len: Longest prompt plus output, in words.
        lists_max_model_len: Whether it tells that, as vLLM does.
        clamps_output: Too large ``max_tokens`` are cut, as by vLLM; else refused, as by OpenAI.
        token_s: Time per token.
        cut_after: Break the connection after so many pieces.
        error_after: Send an error event after so many pieces.
        ends_early: Leave out the last chunks and the end mark.
        answer_with: Answer every completion with this status and body.
        is_down: Break every connection.
        probe_faults: Whether to break the connection of each of the next requests for the models.
        reasoning: What a chat's reply begins with.
        cached_tokens: What the usage tells, None leaves the details out.
        bodies: Bodies of the requests so far.
        headers: Their headers.
        num_left: Clients that went away in the middle of a reply.
    """

    models: tuple[str, ...] = ("fake-model", "other-model")
    max_model_len: int = 1_000
    lists_max_model_len: bool = True
    clamps_output: bool = True
    token_s: float = 0.001
    cut_after: int | None = None
    error_after: int | None = None
    ends_early: bool = False
    answer_with: tuple[int, str] | None = None
    is_down: bool = False
    probe_faults: list[bool] = field(default_factory=list)
    reasoning: tuple[str, ...] = ()
    cached_tokens: int | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_left: int = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        is_probe = scope["path"].endswith("/models")
        if self.is_down or (is_probe and self.probe_faults and self.probe_faults.pop(0)):
            raise ConnectionCutError
        routes = [
            Route("/v1/models", self._list_models),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]
        await Starlette(routes=routes)(scope, receive, send)

    async def _list_models(self, request: Request) -> Response:
        length = {"max_model_len": self.max_model_len} if self.lists_max_model_len else {}
        data = [{"id": name, "object": "model", **length} for name in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.answer_with is not None:
            status, text = self.answer_with
            return Response(text, status)
        if body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist."
            return _error(404, message, "NotFoundError")
        parts, chat = _parts(body), _chat(body)
        prompt_tokens = len((chat.prompt_text + " " + render(parts)).split())
        room = self.max_model_len - prompt_tokens
        if room <= 0 or (body["max_tokens"] > room and not self.clamps_output):
            return _error(400, self._too_long(prompt_tokens, body["max_tokens"]), "BadRequest")
        try:
            reply = make_chat_reply(parts, chat, _sampling(body), min(body["max_tokens"], room))
        except FormatError as exc:
            return _error(400, f"Invalid grammar specification: {exc}", "BadRequestError")
        chunks = self._chunks(reply, prompt_tokens, is_chat="messages" in body)
        return StreamingResponse(self._watched(chunks), media_type="text/event-stream")

    def _too_long(self, prompt_tokens: int, max_tokens: int) -> str:
        return (
            f"This model's maximum context length is {self.max_model_len} tokens. However, you "
            f"requested {prompt_tokens + max_tokens} tokens ({prompt_tokens} in the messages, "
            f"{max_tokens} in the completion). Please reduce the length of the messages."
        )

    async def _watched(self, chunks: AsyncIterator[str]) -> AsyncIterator[str]:
        is_complete = False
        try:
            async for chunk in chunks:
                yield chunk
            is_complete = True
        finally:
            self.num_left += not is_complete

    async def _chunks(self, reply: Reply, prompt_tokens: int, is_chat: bool) -> AsyncIterator[str]:
        for word in self.reasoning:
            yield _event({"choices": [{"delta": {"reasoning": word}}]})
        for number in range(reply.num_tokens):
            if number == self.cut_after:
                raise ConnectionCutError
            if number == self.error_after:
                yield _event({"error": {"message": "the engine is gone", "code": 500}})
                return
            await asyncio.sleep(self.token_s)
            yield _event({"choices": [_token(reply, number, is_chat)]})
        if self.ends_early:
            return
        # vLLM says so after a named tool.
        reason = "stop" if reply.finish_reason == "tool_calls" else reply.finish_reason
        yield _event({"choices": [_choice("", reason, is_chat)]})
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": reply.num_tokens,
        }
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        yield _event({"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def _parts(body: dict[str, Any]) -> list[PromptPart]:
    if "prompt" in body:
        return [PromptPart(PartKind.CONSTANT, str(body["prompt"]))]
    parts: list[PromptPart] = []
    for message in body["messages"]:
        head = MessageHead(
            message.get("name"),
            tuple(
                ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls", ())
            ),
            message.get("tool_call_id"),
        )
        parts.append(PromptPart(PartKind.ROLE, message["role"], head=head))
        parts.append(PromptPart(PartKind.CONSTANT, message["content"]))
    return parts


def _chat(body: dict[str, Any]) -> ChatOptions:
    functions = [tool["function"] for tool in body.get("tools", ())]
    choice: Any = body.get("tool_choice", "auto")
    if not isinstance(choice, str):
        choice = NamedTool(choice["function"]["name"])
    return ChatOptions(
        tuple(Tool(f["name"], f["description"], json.dumps(f["parameters"])) for f in functions),
        choice,
        body.get("parallel_tool_calls", True),
        tuple(body.get("chat_template_kwargs", {}).items()),
    )


def _sampling(body: dict[str, Any]) -> Sampling:
    known = {k: v for k, v in body.items() if k in _SAMPLING_NAMES}
    logprobs = body.get("logprobs")
    if logprobs is True:
        logprobs = body["top_logprobs"]
    return Sampling(**known, logprobs=logprobs, response_format=_format(body))


def _format(body: dict[str, Any]) -> ResponseFormat | None:
    form, extension = body.get("response_format"), body.get("structured_outputs")
    if form is not None:
        schema = form.get("json_schema", {}).get("schema")
        return ResponseFormat(form["type"], "" if schema is None else json.dumps(schema))
    if extension is not None:
        ((kind, content),) = extension.items()
        return ResponseFormat(kind, content if isinstance(content, str) else json.dumps(content))
    return None


def _token(reply: Reply, number: int, is_chat: bool) -> dict[str, Any]:
    if number < len(reply.pieces):
        choice = _choice(reply.pieces[number], None, is_chat)
    else:
        (call,) = reply.details.tool_calls
        hidden = number - len(reply.pieces)
        first = {"id": call.id, "type": "function"} if hidden == 0 else {}
        name = {"name": call.name} if hidden == 0 else {}
        function = {**name, "arguments": reply.hidden_pieces[hidden]}
        choice = {
            "index": 0,
            "delta": {"tool_calls": [{"index": 0, **first, "function": function}]},
        }
    if reply.details.logprobs is not None:
        choice["logprobs"] = _logprobs(reply.details.logprobs[number], is_chat)
    return choice


def _logprobs(logprob: TokenLogprob, is_chat: bool) -> dict[str, Any]:
    if not is_chat:
        return {
            "tokens": [logprob.token],
            "token_logprobs": [logprob.logprob],
            "top_logprobs": [{top.token: top.logprob for top in logprob.top}],
        }
    tops = [{"token": top.token, "logprob": top.logprob} for top in logprob.top]
    one = {"token": logprob.token, "logprob": logprob.logprob, "top_logprobs": tops}
    return {"content": [one]}


def _choice(text: str, finish_reason: str | None, is_chat: bool) -> dict[str, Any]:
    content = {"delta": {"content": text}} if is_chat else {"text": text}
    return {"index": 0, **content, "finish_reason": finish_reason}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _error(status: int, message: str, kind: str) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status)
