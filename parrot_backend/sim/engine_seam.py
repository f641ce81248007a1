"""The seam between the simulated shell and a simulated engine: a machine without a clock.

Whoever drives an engine calls ``advance`` up to the present before anything else, and again when
``next_s`` is due. What happened meanwhile comes back as events with their exact times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from parrot_backend.core.criteria import Objective
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.prefix import PrefixBoundary


@dataclass(frozen=True, slots=True)
class SimRequest:
    """One attempt, as an engine needs to know it.

    Attributes:
        attempt: Its id.
        chain: Boundaries of its prompt, shortest first, with exact lengths; equal hashes are equal
            beginnings. The last one is the whole prompt.
        output_tokens: It ends after so many; at least 1 unless it is a fill.
        objective: What the coordinator asks for.
        remaining: Longest path behind it, in calls.
        tenant: Caches of tenants are apart.
        retain: Hashes of the chain that are to be kept when they are computed.
        is_fill: Its prompt is computed ahead of need, in spare time, and nothing is generated.
    """

    attempt: AttemptId
    chain: tuple[PrefixBoundary, ...]
    output_tokens: int
    objective: Objective
    remaining: int = 0
    tenant: str = "default"
    retain: tuple[bytes, ...] = ()
    is_fill: bool = False

    @property
    def prompt_tokens(self) -> int:
        """How long the prompt is."""
        return self.chain[-1].tokens if self.chain else 0


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt has made its whole output.

    Attributes:
        at_s: When its last token was there.
        first_token_s: When its first one was.
        started_s: When the engine first computed something of it.
        cached_tokens: Prompt tokens found in the cache when it was first admitted.
        computed_tokens: Prompt tokens that were computed, those after preemptions too.
    """

    attempt: AttemptId
    at_s: float
    first_token_s: float
    started_s: float
    cached_tokens: int
    computed_tokens: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An attempt can never run here: it is longer than the model or the memory."""

    attempt: AttemptId
    at_s: float
    message: str


@dataclass(frozen=True, slots=True)
class CacheChanged:
    """What the cache holds has changed; only told by engines that are asked to report it."""

    at_s: float
    held: tuple[PrefixBoundary, ...]
    lost: tuple[bytes, ...]


SimEvent = Finished | Refused | CacheChanged


class SimulatedEngine(Protocol):
    """One engine. All methods take the present, which never runs backwards."""

    def start(self, request: SimRequest, now_s: float) -> None:
        """Queue an attempt."""
        ...

    def abort(self, attempt: AttemptId, now_s: float) -> None:
        """Take an attempt out, wherever it is; unknown ones are ignored."""
        ...

    def update(
        self, attempt: AttemptId, objective: Objective, remaining: int, now_s: float
    ) -> None:
        """Take in what is known of an attempt now; unknown ones are ignored."""
        ...

    def retain(self, key: bytes, attempt: AttemptId | None, now_s: float) -> None:
        """Keep a prefix; with an ended attempt, it is that attempt's prompt and output."""
        ...

    def release(self, keys: tuple[bytes, ...], now_s: float) -> None:
        """Keep prefixes no longer."""
        ...

    def extend(self, attempt: AttemptId, key: bytes, now_s: float) -> None:
        """Name the prompt and output of an ended attempt, so that prompts that go on find it."""
        ...

    def slow_down(self, factor: float, now_s: float) -> None:
        """Take so many times as long for steps that begin from now on."""
        ...

    def advance(self, now_s: float) -> list[SimEvent]:
        """Compute up to the present, and return what happened, in order of time."""
        ...

    @property
    def next_s(self) -> float | None:
        """When something happens next if nothing else comes; None if nothing will."""
        ...
