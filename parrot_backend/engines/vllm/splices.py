"""Staged requests on the client's side: which ones vLLM has, and when each goes on.

The plug-in puts the output of an attempt into the requests that are staged after it, as soon as it
is complete. The same rule is applied here, so that the core is told what happens: a staged
request that vLLM was given goes on when the attempt ended well with at least one token.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from parrot_backend.core.ids import AttemptId


@dataclass(slots=True, eq=False)
class StagedRequest:
    """One staged request.

    Attributes:
        attempt: Its id.
        after: The attempt it waits for.
        gap_tokens: Becomes the number of tokens that were put in.
    """

    attempt: AttemptId
    after: AttemptId
    gap_tokens: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Splices:
    """The staged requests of one engine."""

    def __init__(self) -> None:
        self._after: dict[AttemptId, list[StagedRequest]] = {}

    def add(self, attempt: AttemptId, after: AttemptId) -> StagedRequest:
        """Note that vLLM gets a request now that goes on after an attempt."""
        staged = StagedRequest(attempt, after)
        self._after.setdefault(after, []).append(staged)
        return staged

    def remove(self, staged: StagedRequest) -> None:
        """Forget a staged request, if it has not gone on yet."""
        waiting = self._after.get(staged.after, [])
        if staged in waiting:
            waiting.remove(staged)
            if not waiting:
                del self._after[staged.after]

    def finished(self, attempt: AttemptId, num_tokens: int) -> tuple[AttemptId, ...]:
        """Return which requests go on, now that an attempt has ended with so many tokens."""
        staged_after = self._after.pop(attempt, [])
        if not num_tokens:
            return ()
        # One that has just been aborted may be here still.
        waiting = [staged for staged in staged_after if not staged.gap_tokens.cancelled()]
        for staged in waiting:
            staged.gap_tokens.set_result(num_tokens)
        return tuple(staged.attempt for staged in waiting)
