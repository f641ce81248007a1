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

from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.scripted_reply import Reply, make_reply, render

_SAMPLING_NAMES = {field.name for field in fields(Sampling)}


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
        prompt = _prompt(body)
        prompt_tokens = len(prompt.split())
        room = self.max_model_len - prompt_tokens
        if room <= 0 or (body["max_tokens"] > room and not self.clamps_output):
            return _error(400, self._too_long(prompt_tokens, body["max_tokens"]), "BadRequest")
        sampling = Sampling(**{k: v for k, v in body.items() if k in _SAMPLING_NAMES})
        reply = make_reply(prompt, sampling, min(body["max_tokens"], room))
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
        for number, piece in enumerate(reply.pieces):
            if number == self.cut_after:
                raise ConnectionCutError
            if number == self.error_after:
                yield _event({"error": {"message": "the engine is gone", "code": 500}})
                return
            await asyncio.sleep(self.token_s)
            yield _event({"choices": [_choice(piece, None, is_chat)]})
        if self.ends_early:
            return
        yield _event({"choices": [_choice("", reply.finish_reason, is_chat)]})
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(reply.pieces),
        }
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        yield _event({"choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def _prompt(body: dict[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    parts: list[PromptPart] = []
    for message in body["messages"]:
        parts.append(PromptPart(PartKind.ROLE, message["role"]))
        parts.append(PromptPart(PartKind.CONSTANT, message["content"]))
    return render(parts)


def _choice(text: str, finish_reason: str | None, is_chat: bool) -> dict[str, Any]:
    content = {"delta": {"content": text}} if is_chat else {"text": text}
    return {"index": 0, **content, "finish_reason": finish_reason}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _error(status: int, message: str, kind: str) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status)
