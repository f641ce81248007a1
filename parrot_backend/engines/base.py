"""The engine seam. Every implementation passes ``tests/contract/engine_contract.py``.

An engine is an actor: ``start`` and ``abort`` never block, and everything that happens arrives, in
order for each attempt, on the one stream of ``outputs``. It decides nothing about scheduling
beyond its own batch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from parrot_backend.core.chat import NO_CHAT, ChatOptions
from parrot_backend.core.criteria import Objective
from parrot_backend.core.discovery.beginnings import Beginnings
from parrot_backend.core.events import (
    EngineInfo,
    EngineReported,
    RequestFailed,
    RequestFinished,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, SessionId
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.prompt import PromptPart
from parrot_backend.core.sampling import Sampling


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One attempt of a request, as an engine sees it.

    Attributes:
        objective: A hint, like ``remaining``; an engine that cannot use it ignores it.
        cache_salt: Keeps the prefix caches of tenants apart (None shares).
        tenant: Whose request it is, for fairness.
        remaining: Longest path from here to a node nobody reads, in nodes.
        prefixes: Boundaries of the prompt, one for each part that is not a role.
        retain: Hashes of those, and of ``beginnings``, that are to be kept once computed.
        after: This request waits for the output of that running attempt, which goes into part
            ``gap`` and has at most ``max_gap_tokens``. The engine goes on with it by itself and
            says so in ``RequestFinished.spliced``; if it cannot, nothing is heard of it.
        fill_parts: This is no attempt but a fill: so many leading parts are to be computed in spare
            capacity, and no text is wanted. It ends with ``RequestFinished`` all the same.
        chat: Tools and the like, if the prompt is a chat. A fill or a staged request has them, too,
            because they are part of the prompt.
        quiet: Nobody reads the text while it is generated: the engine may say it all at the end, in
            ``RequestFinished`` alone. An engine that is silent meanwhile still gives signs of life
            (an empty ``EngineReported``) as long as it makes progress, and says how long it
            generated (``RequestUsage.decode_s``).
        beginnings: Beginnings of the prompt that end inside of a part; only of use to an engine
            that keeps prefixes. What follows one must not change which tokens count towards it.
    """

    attempt: AttemptId
    session: SessionId
    model: str | None
    parts: tuple[PromptPart, ...]
    sampling: Sampling
    objective: Objective
    cache_salt: str | None = None
    tenant: str = ""
    remaining: int = 0
    prefixes: PrefixChain = ()
    retain: tuple[bytes, ...] = ()
    after: AttemptId | None = None
    gap: int = 0
    max_gap_tokens: int = 0
    fill_parts: int | None = None
    chat: ChatOptions = NO_CHAT
    quiet: bool = False
    beginnings: Beginnings = ()


@dataclass(frozen=True, slots=True)
class AttentionLoad:
    """How an engine's attention shares reads of KV. Counters run since the start of the engine.

    Attributes:
        state: ``on``, ``off``, or why requests never share reads there.
        steps: Steps that computed attention.
        shared_steps: Those of them in which requests shared reads.
        kv_tokens: Tokens of KV that each layer would have read without sharing.
        kv_tokens_read: Those that it read.
    """

    state: str
    steps: int
    shared_steps: int
    kv_tokens: int
    kv_tokens_read: int


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine tells of its load: requests running and waiting inside it, KV use in [0, 1].

    Counters run since the start of the engine. What it keeps for requests to come is 0 for engines
    that keep nothing.

    Attributes:
        pinned_tokens: KV tokens that are kept now.
        pinned_hit_tokens: Prompt tokens that were found in what is kept.
        lost_pins: Prefixes that were not kept as wished: too many, too old, or room was needed.
        preempted: Requests that gave way to latency-sensitive ones.
        attention: None for engines that do not tell.
    """

    running: int
    waiting: int
    kv_usage: float
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    pinned_tokens: int = 0
    pinned_hit_tokens: int = 0
    lost_pins: int = 0
    preempted: int = 0
    attention: AttentionLoad | None = None


#: What an engine says about an attempt. ``RequestFinished`` and ``RequestFailed`` are terminal.
AttemptOutput = TokensGenerated | RequestFinished | RequestFailed

#: All that an engine says.
EngineOutput = AttemptOutput | EngineReported


class EngineDied(Exception):  # noqa: N818 - a fact about the engine, named as such
    """Raised out of ``outputs`` when the engine cannot go on; its message is the reason."""


class Engine(Protocol):
    """A place where requests run."""

    async def open(self) -> EngineInfo:
        """Start the engine; return when it can serve.

        Raises:
            EngineError: ``engine_start_failed`` with the cause.
        """
        ...

    def start(self, request: EngineRequest) -> None:
        """Begin an attempt and return at once.

        Exactly one terminal output follows on ``outputs``, unless the attempt is aborted first or
        the engine dies or is closed. Bad requests (``unknown_model``, ``prompt_too_long``,
        ``invalid_sampling``, ``engine_rejected``) are told there too, as ``RequestFailed`` that is
        not retryable. Attempt ids are never used twice.

        A prompt that fills the model's context alone is ``prompt_too_long``. One that leaves less
        room than ``max_tokens`` gets the room there is, and ends with finish reason ``length``; so
        does one without ``max_tokens``.
        """
        ...

    def abort(self, attempt: AttemptId) -> None:
        """Stop an attempt and say nothing more of it. Unknown or finished ones are ignored."""
        ...

    def update(self, attempt: AttemptId, objective: Objective, remaining: int) -> None:
        """Change the hints of an attempt. Ignored where it is not known or nothing can be done.

        The engine says in ``EngineInfo.takes_updates`` whether it heeds this.
        """
        ...

    def retain(self, key: bytes, attempt: AttemptId | None) -> None:
        """Keep a prefix until ``release``, as far as the engine can; return at once.

        It is one of the boundaries of a request that was started here, or with ``attempt`` the
        prompt and output of that finished attempt. The engine bounds what it keeps and for how
        long, and says in ``EngineInfo.keeps_prefixes`` whether it keeps anything.
        """
        ...

    def release(self, keys: Sequence[bytes]) -> None:
        """Keep prefixes no longer. Unknown ones are ignored."""
        ...

    def outputs(self) -> AsyncIterator[EngineOutput]:
        """Yield what happens, until ``close``; for one reader.

        Raises:
            EngineDied: The engine is gone; nothing more will come.
        """
        ...

    def load(self) -> EngineLoad:
        """Return the present load. Cheap: it may be called for each scrape of the metrics."""
        ...

    async def drain(self) -> None:
        """Return when no attempt is running any more. New ones may still be started."""
        ...

    async def close(self) -> None:
        """End the engine and what it started, also when it hangs. Idempotent; ends ``outputs``."""
        ...
