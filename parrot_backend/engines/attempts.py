"""What every engine does with attempts: check them, run one task for each, and end them.

The checks give an answer; who asks says it on its stream. Nothing here knows how a request runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from parrot_backend.core.events import RequestFailed
from parrot_backend.core.ids import AttemptId
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.output_stream import OutputStream

logger = logging.getLogger(__name__)


def check_model(request: EngineRequest, models: Sequence[str]) -> RequestFailed | None:
    """Return the failure of a request for a model that is not among ``models``."""
    if request.model is None or request.model in models:
        return None
    served = ", ".join(models)
    message = f"model {request.model!r} is not served here; there is {served}"
    return RequestFailed(request.attempt, "unknown_model", message)


def fit_output(
    request: EngineRequest, prompt_tokens: int, max_model_len: int
) -> int | RequestFailed:
    """Return how many tokens may be generated, or the failure of a prompt that leaves no room."""
    room_tokens = max_model_len - prompt_tokens
    if room_tokens > 0:
        limit_tokens = request.sampling.max_tokens
        return room_tokens if limit_tokens is None else min(limit_tokens, room_tokens)
    return prompt_too_long(str(prompt_tokens), request, max_model_len)


def prompt_too_long(tokens: str, request: EngineRequest, max_model_len: int) -> RequestFailed:
    """Return the failure of a prompt that leaves no room; ``tokens`` says how many it has."""
    message = (
        f"the prompt has {tokens} tokens and the model's context {max_model_len}; "
        "shorten the prompt"
    )
    return RequestFailed(request.attempt, "prompt_too_long", message)


class AttemptTasks:
    """One task for each running attempt.

    Args:
        stream: Gets a terminal output for an attempt whose task fails by a defect of ours, so
            that nobody waits for ever.
    """

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        self._running: dict[AttemptId, asyncio.Task[None]] = {}
        self._alive: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, attempt: AttemptId) -> bool:
        return attempt in self._running

    def start(self, attempt: AttemptId, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of an attempt; it says its own terminal output."""
        task = asyncio.create_task(work, name=attempt)
        self._running[attempt] = task
        self._alive.add(task)
        task.add_done_callback(self._forget)

    def abort(self, attempt: AttemptId) -> None:
        """Cancel an attempt and take back what it said; unknown or finished ones are ignored."""
        task = self._running.pop(attempt, None)
        if task is not None:
            task.cancel()
        self._stream.silence(attempt)

    async def drain(self) -> None:
        """Return when no attempt is running."""
        while self._running:
            await asyncio.wait(self._running.values())
            # The callbacks that forget the finished tasks run in the next turn of the loop.
            await asyncio.sleep(0)

    async def cancel_all(self) -> None:
        """Cancel every attempt and wait until all have ended, aborted ones too."""
        self._running.clear()
        for task in self._alive:
            task.cancel()
        if self._alive:
            await asyncio.wait(self._alive)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._alive.discard(task)
        attempt = AttemptId(task.get_name())
        was_running = self._running.pop(attempt, None) is not None
        if task.cancelled() or task.exception() is None:
            return
        logger.error("attempt=%s failed by a defect", attempt, exc_info=task.exception())
        if was_running:
            message = f"a defect in the engine's client: {task.exception()!r}"
            self._stream.put(RequestFailed(attempt, "engine_failed", message))
