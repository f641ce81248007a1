"""The workloads of the paper's figures, with their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import cast

from parrot_backend.sim.program import Arrival
from parrot_backend.sim.workloads.app import ARRIVALS, App, endless
from parrot_backend.sim.workloads.arrivals import ArrivalProcess, merged, seeded
from parrot_backend.sim.workloads.chats import CHAT_LENGTHS, ChatLengths, mixed_jobs
from parrot_backend.sim.workloads.metagpt import metagpt_jobs
from parrot_backend.sim.workloads.settings import Parameter, Settings
from parrot_backend.sim.workloads.shared_prompts import copilot_jobs, four_gpts_jobs
from parrot_backend.sim.workloads.summaries import (
    ARTICLE_SETS,
    CHUNK_SIZES,
    articles,
    background_jobs,
    chain_jobs,
    map_reduce_jobs,
)

#: In the artifact the chain begins so long after the calls beside it.
_CHAIN_BEGINS_S = 3.0


_OUTPUT_TOKENS = Parameter("output_tokens", 50, "length of each output", least=1)
_DOCUMENTS = (
    Parameter("articles", ARTICLE_SETS[0], "set of documents", choices=ARTICLE_SETS),
    Parameter("chunk_size", 1024, "nominal size of a chunk", choices=CHUNK_SIZES),
    _OUTPUT_TOKENS,
)


def _documents(settings: Settings) -> tuple[tuple[int, ...], ...]:
    return articles(settings.word("articles"), settings.whole("chunk_size"))


def _chain_beside_background(settings: Settings, seed: int) -> Iterator[Arrival]:
    document = articles("arxiv-sampled", 1024)[settings.whole("article")]
    chain = chain_jobs([_CHAIN_BEGINS_S], [document], settings.whole("output_tokens"), str(seed))
    process = ArrivalProcess("poisson", settings.real("background_per_s"))
    times_s = process.times_s(seeded(seed, "arrivals"))
    last_s = settings.real("background_s")
    return merged(chain, background_jobs(takewhile(lambda time: time <= last_s, times_s)))


def _mixed(settings: Settings, seed: int) -> Iterator[Arrival]:
    return mixed_jobs(
        seeded(seed, "lengths"),
        settings.whole("chats"),
        settings.real("chats_per_s"),
        settings.real("map_reduce_after_s"),
        str(seed),
        cast(ChatLengths, settings.word("lengths")),
    )


PAPER_APPS = (
    App(
        "chain_summary",
        "a document summed up chunk by chunk (figures 11, 12b)",
        (*ARRIVALS, *_DOCUMENTS),
        endless(
            lambda s, seed, t: chain_jobs(t, _documents(s), s.whole("output_tokens"), str(seed))
        ),
    ),
    App(
        "chain_beside_background",
        "one chain summary, and single calls beside it (figure 12a)",
        (
            Parameter("article", 0, "which of the ten documents", choices=tuple(range(10))),
            _OUTPUT_TOKENS,
            Parameter("background_per_s", 1.0, "single calls per second", above=0),
            Parameter("background_s", 400.0, "when they end", least=0),
        ),
        _chain_beside_background,
    ),
    App(
        "map_reduce_summary",
        "a document's chunks summed up at once, and then their summaries (figure 14)",
        (*ARRIVALS, *_DOCUMENTS),
        endless(
            lambda s, seed, t: map_reduce_jobs(
                t, _documents(s), s.whole("output_tokens"), str(seed)
            )
        ),
    ),
    App(
        "copilot",
        "requests with one long prompt in common (figures 15, 16)",
        (*ARRIVALS, Parameter("output_tokens", 0, "length of outputs; 0: recorded", least=0)),
        endless(
            lambda s, seed, t: copilot_jobs(t, s.whole("output_tokens") or None, run=str(seed))
        ),
    ),
    App(
        "four_gpts",
        "requests with one of four long prompts (figure 17)",
        ARRIVALS,
        endless(lambda s, seed, t: four_gpts_jobs(t, seeded(seed, "lengths"), run=str(seed))),
    ),
    App(
        "metagpt",
        "agents who design, write, review and revise files (figure 18)",
        (
            *ARRIVALS,
            Parameter("files", 8, "files written at once", least=1),
            Parameter("review_rounds", 3, "rounds of review and revision", least=0),
            Parameter("as_replayed", False, "as the paper's artifact replays it; its rounds are 4"),
        ),
        endless(
            lambda s, seed, t: metagpt_jobs(
                t,
                s.whole("files"),
                s.whole("review_rounds"),
                str(seed),
                as_replayed=s.flag("as_replayed"),
            )
        ),
    ),
    App(
        "mixed",
        "chats, and nine map-reduce jobs in bursts (figure 19)",
        (
            Parameter("chats", 40, "chats in all", least=1),
            Parameter("chats_per_s", 1.0, "chats per second", above=0),
            Parameter("map_reduce_after_s", 0.0, "when the first map-reduce begins", least=0),
            Parameter("lengths", CHAT_LENGTHS[0], "whose lengths chats have", choices=CHAT_LENGTHS),
        ),
        _mixed,
    ),
)
