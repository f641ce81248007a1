"""One reply of a remote server: chunks in, outputs of the engine seam out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from parrot_backend.core.chat import OutputDetails, TokenLogprob, ToolCall
from parrot_backend.core.events import RequestFinished, RequestUsage, TokensGenerated
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.openai_wire import CallDelta, Chunk


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""

    def add(self, delta: CallDelta) -> None:
        self.id = self.id or delta.id
        self.name = self.name or delta.name
        self.arguments += delta.arguments


class RemoteReply:
    """Collects the chunks of one reply.

    Args:
        request: What was asked.

    Attributes:
        usage: What the server counted, when it has told.
    """

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._logprobs: list[TokenLogprob] = []
        self._finish_reason: str | None = None
        self.usage: RequestUsage | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all has come that ends a reply."""
        return self._finish_reason is not None and self.usage is not None

    def add(self, chunk: Chunk) -> list[TokensGenerated]:
        """Take in a chunk; return what is to be said of it."""
        attempt = self._request.attempt
        said: list[TokensGenerated] = []
        if chunk.reasoning:
            self._thoughts.append(chunk.reasoning)
            said.append(TokensGenerated(attempt, chunk.reasoning, 1, is_reasoning=True))
        if chunk.text:
            self._texts.append(chunk.text)
            said.append(TokensGenerated(attempt, chunk.text, 1))
        for delta in chunk.call_deltas:
            self._calls.setdefault(delta.index, _Call()).add(delta)
        if chunk.call_deltas and not said:
            # A call gives no text for long: say that the engine lives.
            said.append(TokensGenerated(attempt, "", 1))
        self._logprobs += chunk.logprobs
        self._finish_reason = chunk.finish_reason or self._finish_reason
        self.usage = chunk.usage or self.usage
        return said

    def finished(self) -> RequestFinished:
        """Return the whole of a complete reply."""
        assert self._finish_reason is not None, "checked by the caller"
        assert self.usage is not None, "checked by the caller"
        calls = [self._calls[index] for index in sorted(self._calls)]
        text, reason = "".join(self._texts), self._finish_reason
        # Servers say "stop" after a forced call.
        has_calls = reason == "stop" and calls
        details = OutputDetails(
            tool_calls=tuple(ToolCall(call.id, call.name, call.arguments) for call in calls),
            reasoning="".join(self._thoughts) or None,
            logprobs=self._told_logprobs(text),
        )
        reason = "tool_calls" if has_calls else reason
        return RequestFinished(
            self._request.attempt, text, None, reason, self.usage, details=details
        )

    def _told_logprobs(self, text: str) -> tuple[TokenLogprob, ...] | None:
        num_top = self._request.sampling.logprobs
        if num_top is None:
            return None
        told = self._logprobs
        if told and _joined(told[:-1]) == text:
            told = told[:-1]  # vLLM tells of the token that ends the text, too
        return tuple(replace(one, top=one.top[:num_top]) for one in told)


def _joined(logprobs: Sequence[TokenLogprob]) -> str:
    return "".join(one.token for one in logprobs)
