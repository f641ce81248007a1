"""Workloads beyond the paper's, with their parameters: agents, chats and recorded traffic."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import cast

from parrot_backend.sim.program import Arrival, Program
from parrot_backend.sim.workloads.agents.answering import debate, expert_panel, reflection
from parrot_backend.sim.workloads.agents.reporting import product_insights, running_summary
from parrot_backend.sim.workloads.agents.trading import trading
from parrot_backend.sim.workloads.app import ARRIVALS, App, Build, endless
from parrot_backend.sim.workloads.arrivals import first, jobs_at, seeded
from parrot_backend.sim.workloads.chats import (
    CHAT_LENGTHS,
    ChatLengths,
    chat_jobs,
    recorded_chats,
)
from parrot_backend.sim.workloads.replayed import azure_jobs, mooncake_jobs
from parrot_backend.sim.workloads.settings import Parameter, Settings
from parrot_backend.sim.workloads.swe_agent import agent_jobs

_SPEED = Parameter("speed", 1.0, "so many times as fast as recorded", above=0)
_QUESTIONS = Parameter("questions", 6, "questions on one context", least=1)


def _team(make: Callable[[Settings, str, random.Random], Program]) -> Build:
    """Return a builder of jobs that draw their lengths one after another."""

    def arrivals(s: Settings, seed: int, times_s: Iterator[float]) -> Iterator[Arrival]:
        rng = seeded(seed, "lengths")
        return jobs_at(times_s, lambda number: make(s, f"{seed}/{number}", rng))

    return endless(arrivals)


AGENT_APPS = (
    App(
        "swe_agent",
        "sessions of a programming agent with its tools",
        (
            *ARRIVALS,
            Parameter("tool_s", 2.0, "mean time of a tool", above=0),
            Parameter("tool_sigma", 1.0, "deviation of its logarithm", above=0),
        ),
        endless(
            lambda s, seed, t: agent_jobs(
                t, seeded(seed, "lengths"), s.real("tool_s"), s.real("tool_sigma"), str(seed)
            )
        ),
    ),
    App(
        "expert_panel",
        "experts answer questions, one sums up",
        (*ARRIVALS, Parameter("experts", 7, "roles", least=1), _QUESTIONS),
        _team(lambda s, job, rng: expert_panel(job, rng, s.whole("experts"), s.whole("questions"))),
    ),
    App(
        "debate",
        "agents answer questions and revise after reading each other",
        (
            *ARRIVALS,
            Parameter("agents", 3, "who debate", least=1),
            Parameter("rounds", 2, "answers of each", least=1),
            _QUESTIONS,
        ),
        _team(
            lambda s, job, rng: debate(
                job, rng, s.whole("agents"), s.whole("rounds"), s.whole("questions")
            )
        ),
    ),
    App(
        "reflection",
        "an analyst answers, two critics comment, the analyst answers again",
        (*ARRIVALS, _QUESTIONS),
        _team(lambda s, job, rng: reflection(job, rng, s.whole("questions"))),
    ),
    App(
        "running_summary",
        "a summary of reviews, brought up to date chunk by chunk",
        (*ARRIVALS, Parameter("chunks", 6, "calls of each job", least=1)),
        _team(lambda s, job, rng: running_summary(job, rng, s.whole("chunks"))),
    ),
    App(
        "product_insights",
        "experts each read all reviews, a writer reports",
        (
            *ARRIVALS,
            Parameter("experts", 7, "roles", choices=tuple(range(1, 8))),
            Parameter("chunks", 6, "chunks of reviews", least=1),
        ),
        _team(
            lambda s, job, rng: product_insights(job, rng, s.whole("experts"), s.whole("chunks"))
        ),
    ),
    App(
        "trading",
        "analysts, researchers, traders and risk analysts decide on a stock",
        (
            *ARRIVALS,
            Parameter("traders", 8, "who decide side by side", choices=tuple(range(1, 9))),
            Parameter("rounds", 2, "rounds of each debate", least=1),
        ),
        _team(lambda s, job, rng: trading(job, rng, s.whole("traders"), s.whole("rounds"))),
    ),
)

TRAFFIC_APPS = (
    App(
        "chat",
        "single chats with recorded lengths",
        (
            *ARRIVALS,
            Parameter("lengths", CHAT_LENGTHS[0], "whose lengths they have", choices=CHAT_LENGTHS),
        ),
        endless(
            lambda s, seed, t: chat_jobs(
                t,
                seeded(seed, "lengths"),
                recorded_chats(cast(ChatLengths, s.word("lengths"))),
                run=str(seed),
            )
        ),
    ),
    App(
        "mooncake",
        "conversations of Kimi with the prefixes they share, as recorded in an hour",
        (Parameter("jobs", 12_031, "requests in all", least=1), _SPEED),
        lambda s, _: first(mooncake_jobs(s.real("speed")), s.whole("jobs")),
    ),
    App(
        "azure",
        "conversations of Azure, as recorded in an hour",
        (Parameter("jobs", 19_366, "requests in all", least=1), _SPEED),
        lambda s, _: first(azure_jobs(s.real("speed")), s.whole("jobs")),
    ),
)
