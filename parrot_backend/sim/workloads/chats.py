"""Chats of one call with lengths as in ShareGPT, and chats beside map-reduce (figure 19)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Constant, Program
from parrot_backend.sim.workloads.arrivals import after_gaps, delayed, jobs_at, merged
from parrot_backend.sim.workloads.building import LATENCY, single_call
from parrot_backend.sim.workloads.summaries import articles, map_reduce_jobs
from parrot_backend.sim.workloads.tables import Lengths, azure_conversation, sharegpt

#: Whose lengths chats have.
ChatLengths = Literal["sharegpt", "azure"]
CHAT_LENGTHS: tuple[ChatLengths, ...] = ("sharegpt", "azure")

#: Longest prompt, and longest prompt plus output, of the artifact's chats.
_MAX_PROMPT_TOKENS, _MAX_TOKENS = 1024, 2048

#: Gaps between the nine map-reduce jobs of figure 19: three at a time.
_MAP_REDUCE_GAPS_S = (0.5, 0.5, 10.0, 0.5, 0.5, 10.0, 0.5, 0.5)


def recorded_chats(lengths: ChatLengths) -> tuple[Lengths, ...]:
    """Return the lengths of recorded chats.

    Args:
        lengths: ``sharegpt`` for 300 chats of ShareGPT, all of which have outputs of 512 tokens and
            more; ``azure`` for those of a service, which are much shorter.
    """
    if lengths == "sharegpt":
        return sharegpt()
    return tuple(Lengths(r.prompt_tokens, r.output_tokens) for r in azure_conversation())


def short_chats(lengths: ChatLengths = "sharegpt") -> tuple[Lengths, ...]:
    """Return the recorded chats that the artifact would admit; it drew them from all ShareGPT."""
    return tuple(
        chat
        for chat in recorded_chats(lengths)
        if 4 <= chat.prompt_tokens <= _MAX_PROMPT_TOKENS
        and chat.output_tokens >= 4
        and chat.prompt_tokens + chat.output_tokens <= _MAX_TOKENS
    )


def chat_jobs(
    times_s: Iterable[float],
    rng: random.Random,
    chats: Sequence[Lengths],
    criteria: Criteria = LATENCY,
    run: str = "",
) -> Iterator[Arrival]:
    """Return chats, each with a text of its own; lengths are drawn again when all were drawn.

    Args:
        times_s: When.
        rng: Draws the lengths.
        chats: What is drawn from.
        criteria: What each user asks for.
        run: Sets the texts of one run apart from another's.
    """
    drawn = _drawn(rng, chats)

    def make(number: int) -> Program:
        chat = next(drawn)
        own = Constant(f"chat/{run}/{number}", chat.prompt_tokens)
        return single_call("chat", (own,), chat.output_tokens, criteria)

    return jobs_at(times_s, make)


def mixed_jobs(
    rng: random.Random,
    num_chats: int = 40,
    chats_per_s: float = 1.0,
    map_reduce_after_s: float = 0.0,
    run: str = "",
    lengths: ChatLengths = "sharegpt",
    criteria: Criteria = LATENCY,
) -> Iterator[Arrival]:
    """Return the load of figure 19: chats at even gaps, and nine map-reduce jobs in three bursts.

    The artifact begins the map-reduce jobs 15 s after the chats' process, which loads for about as
    long; chats are drawn from 300 recorded ones with longer outputs, not from all of ShareGPT.

    Args:
        rng: Draws the chats.
        num_chats: How many.
        chats_per_s: How often.
        map_reduce_after_s: When the first map-reduce job begins, after the first chat.
        run: Sets the texts of one run apart from another's.
        lengths: Whose lengths the chats have.
        criteria: What each user of a chat asks for.
    """
    times = (number / chats_per_s for number in range(num_chats))
    chats = chat_jobs(times, rng, short_chats(lengths), criteria, run)
    document = articles("arxiv-sampled", 1024)[:1]
    jobs = map_reduce_jobs(after_gaps(_MAP_REDUCE_GAPS_S), document, 50, run)
    return merged(chats, delayed(jobs, map_reduce_after_s))


def _drawn(rng: random.Random, chats: Sequence[Lengths]) -> Iterator[Lengths]:
    while True:
        yield from rng.sample(chats, len(chats))
