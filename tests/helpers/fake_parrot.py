"""A stand-in for the Parrot server, as far as tests of the front end need one.

``FakeParrot.handle`` and ``ahandle`` are handlers for ``httpx.MockTransport``. Submitted graphs
are evaluated at once by a deterministic text function. A variable whose name is in ``held`` is
left to the test, which then plays the engine with ``say``, ``restart``, ``finish`` and ``fail``.
Every request is logged, and failures can be put in front of the next ones.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from parrot_backend.protocol import (
    CallNode,
    StreamReset,
    StreamToken,
    SubmitReply,
    SubmitRequest,
)
from tests.helpers.fake_graph import FakeSession, failure
from tests.helpers.fake_replies import (
    TICK_S,
    awaiting,
    blocking,
    error_reply,
    event_bytes,
    model_reply,
    stream_reply,
)

#: What is given instead of an answer.
Mishap = httpx.Response | Exception
#: None for as long as a request waits, then its answer.
Answers = Iterator[httpx.Response | None]


def echo(prompt: str) -> str:
    """Return a text that shows the prompt it was made from."""
    return f"<{prompt}>"


class FakeParrot:
    """The server.

    Attributes:
        generate: The text function; a ``ValueError`` fails the output with its text as the code.
        held: Names of outputs that are not generated until the test does it.
        details: What a call's view tells beside the value: tool calls, reasoning, logprobs, ...
        log: Method and path of every request that arrived, in order.
        submits: Bodies of the submits that were carried out (repeats excluded).
        keys: Idempotency keys of the submits that arrived (repeats included).
        headers: Headers of the last request.
        queries: Query parameters of the requests for variables.
        mishaps: Happen to the next requests, in order, instead of an answer.
        lost_replies: How many of the next requests are carried out, but their reply is lost.
        breaks: After how many events each of the next streams breaks off.
        max_stream_ticks: After how many looks without an end a stream says ``timeout``.
    """

    def __init__(self, generate: Callable[[str], str] = echo) -> None:
        self.generate = generate
        self.held: set[str] = set()
        self.details: Callable[[CallNode], dict[str, Any]] = lambda _node: {}
        self.log: list[str] = []
        self.submits: list[SubmitRequest] = []
        self.keys: list[str | None] = []
        self.headers = httpx.Headers()
        self.queries: list[dict[str, str]] = []
        self.mishaps: list[Mishap] = []
        self.lost_replies = 0
        self.breaks: list[int] = []
        self.max_stream_ticks = 1_000_000
        self.sessions: dict[str, FakeSession] = {}
        self._known_submits: dict[str | None, str] = {}
        self._lock = threading.RLock()
        self._is_down = False

    # --- the test's side ----------------------------------------------------------------------

    @property
    def stages(self) -> list[str | None]:
        """The stages of all calls, in order."""
        nodes = [node for submit in self.submits for node in submit.nodes]
        return [node.stage for node in nodes if isinstance(node, CallNode)]

    def say(self, name: str, text: str) -> None:
        """Generate some text of a held variable."""
        self._session_of(name).variables[name].said.append(StreamToken(variable=name, text=text))

    def restart(self, name: str) -> None:
        """Lose the text of a held variable."""
        self._session_of(name).variables[name].said.append(StreamReset(variable=name))

    def finish(self, name: str, value: str) -> None:
        """Give a held variable its value."""
        with self._lock:
            self._session_of(name).settle(name, value=value)
            self._session_of(name).evaluate()

    def fail(self, name: str, code: str) -> None:
        """Fail a held variable, and what reads it."""
        with self._lock:
            self._session_of(name).fail(name, "failed", failure(code, name))

    def shut_down(self) -> None:
        """Refuse everything from here on, so that readers end."""
        self._is_down = True

    def count(self, prefix: str) -> int:
        """Return how many requests began with a method and path."""
        return sum(line.startswith(prefix) for line in self.log)

    # --- httpx's side -------------------------------------------------------------------------

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, blocking."""
        for answer in self._answers(request):
            if answer is not None:
                parts = answer.extensions.get("parts")
                return answer if parts is None else stream_reply(blocking(parts))
            time.sleep(TICK_S)
        raise AssertionError("every request is answered")

    async def ahandle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, awaiting."""
        for answer in self._answers(request):
            if answer is not None:
                parts = answer.extensions.get("parts")
                return answer if parts is None else stream_reply(awaiting(parts))
            await asyncio.sleep(TICK_S)
        raise AssertionError("every request is answered")

    def _answers(self, request: httpx.Request) -> Answers:
        with self._lock:
            if self._is_down:
                raise httpx.ConnectError("the fake server is down")
            self.log.append(f"{request.method} {request.url.path}")
            self.headers = request.headers
            answers = self._mishap() or self._route(request)
            first = next(answers)
            if self.lost_replies:
                self.lost_replies -= 1
                raise httpx.ReadError("the reply was lost")
        yield first
        yield from answers

    def _mishap(self) -> Answers | None:
        if not self.mishaps:
            return None
        mishap = self.mishaps.pop(0)
        if isinstance(mishap, Exception):
            raise mishap
        return iter([mishap])

    def _route(self, request: httpx.Request) -> Answers:
        match (request.method, request.url.path.split("/")[2:]):
            case ("POST", ["submit"]):
                return self._submit(SubmitRequest.model_validate_json(request.content))
            case ("GET", ["variables", variable]):
                self.queries.append(dict(request.url.params))
                return self._get(variable, self.queries[-1])
            case ("PUT", ["variables", variable]):
                return self._set(variable, json.loads(request.content)["value"])
            case ("POST", ["sessions", session, "cancel"]):
                return self._cancel(session, json.loads(request.content)["variables"])
            case ("DELETE", ["sessions", session]):
                return self._cancel(session, None)
            case _:
                return iter([error_reply(404, "not_found")])

    def _submit(self, body: SubmitRequest) -> Answers:
        self.keys.append(body.idempotency_key)
        session_id = self._known_submits.get(body.idempotency_key)
        if session_id is None:
            session_id = body.session_id or f"s{len(self.sessions) + 1}"
            if body.session_id is not None and body.session_id not in self.sessions:
                yield error_reply(404, "unknown_session")
                return
            session = FakeSession(session_id, self.generate, self.held, self.details)
            self.sessions.setdefault(session_id, session).add(body)
            self.submits.append(body)
            self._known_submits[body.idempotency_key] = session_id
        names = [wanted.variable for wanted in body.outputs]
        if body.stream:
            yield self._streamed(session_id, names)
            return
        variables = self.sessions[session_id].variables
        ticks = math.inf if body.timeout_s is None else body.timeout_s / TICK_S
        while body.wait and ticks > 0 and not all(variables[n].is_settled for n in names):
            ticks -= 1
            yield None
        yield model_reply(self._submit_reply(session_id, names))

    def _get(self, variable: str, query: dict[str, str]) -> Answers:
        session_id, _, name = variable.partition(".")
        if session_id not in self.sessions:
            yield error_reply(404, "unknown_session")
            return
        if query.get("stream") == "true":
            yield self._streamed(session_id, [name])
            return
        found = self.sessions[session_id].variables[name]
        ticks = float(query["timeout_s"]) / TICK_S if query.get("wait") == "true" else 0
        while ticks > 0 and not found.is_settled:
            ticks -= 1
            yield None
        yield model_reply(found.view)

    def _set(self, variable: str, value: str) -> Answers:
        session_id, _, name = variable.partition(".")
        session = self.sessions[session_id]
        if session.variables[name].is_settled:
            yield error_reply(409, "variable_already_set")
            return
        session.settle(name, value=value)
        session.evaluate()
        yield model_reply(session.variables[name].view)

    def _cancel(self, session_id: str, names: list[str] | None) -> Answers:
        session = self.sessions[session_id]
        for name in list(session.variables) if names is None else names:
            session.fail(name, "cancelled", failure("cancelled", name))
        yield httpx.Response(204)

    def _session_of(self, name: str) -> FakeSession:
        return next(s for s in reversed(self.sessions.values()) if name in s.variables)

    def _submit_reply(self, session_id: str, names: list[str]) -> SubmitReply:
        variables = self.sessions[session_id].variables
        views = {name: variables[name].view for name in names}
        return SubmitReply(session_id=session_id, variables=views)

    def _streamed(self, session_id: str, names: list[str]) -> httpx.Response:
        return httpx.Response(200, extensions={"parts": self._parts(session_id, names)})

    def _parts(self, session_id: str, names: list[str]) -> Iterator[bytes | None]:
        """Yield events, and None while there is nothing to say."""
        num_left = self.breaks.pop(0) if self.breaks else 1_000_000
        variables = [self.sessions[session_id].variables[name] for name in names]
        heard = [0] * len(variables)
        yield event_bytes(self._submit_reply(session_id, names))
        for _ in range(self.max_stream_ticks):
            is_over = all(variable.is_settled for variable in variables)
            news = [
                said
                for number, variable in zip(heard, variables, strict=True)
                for said in variable.said[number:]
            ]
            heard = [len(variable.said) for variable in variables]
            for said in news:
                if num_left == 0:
                    raise httpx.ReadError("the stream broke off")
                num_left -= 1
                yield event_bytes(said)
            if is_over:
                yield b"event: done\ndata: {}\n\n"
                return
            if num_left == 0 or self._is_down:
                raise httpx.ReadError("the stream broke off")
            yield None
        yield b"event: timeout\ndata: {}\n\n"
