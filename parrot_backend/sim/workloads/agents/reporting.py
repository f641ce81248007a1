"""Workflows that read much and write a report: a running summary, and experts in parallel."""

from __future__ import annotations

import random

from parrot_backend.sim.program import Output, Program
from parrot_backend.sim.workloads.agents.lengths import ITEM, REMARK, REPORT, REVIEWS
from parrot_backend.sim.workloads.agents.team import Team
from parrot_backend.sim.workloads.building import prompt
from parrot_backend.sim.workloads.checks import at_least

# Instructions, in Llama tokens, as they stand in the workflows' ``prompts/amazon.yaml``.
_RUNNING_FIRST, _RUNNING_NEXT = 6 + 226, 6 + 209
_EXPERTS = (296, 288, 296, 298, 301, 254, 296)
_EXPERT_HEAD, _WRITER, _EXTRACT, _SUMMARIZE, _WRITE, _INSIGHTS_FROM = 13, 312, 197, 222, 306, 8


def running_summary(job: str, rng: random.Random, num_chunks: int = 6) -> Program:
    """Return a summary of reviews that each call brings up to date with one more chunk of them.

    Helium's ``iterative``: six chunks of ten reviews.

    Args:
        job: Equal jobs have equal texts.
        rng: Draws lengths.
        num_chunks: Calls.

    Raises:
        WorkloadError: There is no chunk.
    """
    at_least("num_chunks", num_chunks, 1)
    team = Team("running_summary", job, rng)
    first = team.instructions("first", _RUNNING_FIRST)
    summary = team.ask("0", "first", REPORT, first, team.own("reviews-0", REVIEWS))
    for number in range(1, num_chunks):
        reviews = team.own(f"reviews-{number}", REVIEWS)
        head = team.instructions("next", _RUNNING_NEXT)
        summary = team.ask(str(number), "next", REPORT, head, summary, reviews)
    return team.program([summary])


def product_insights(
    job: str, rng: random.Random, num_experts: int = 7, num_chunks: int = 6
) -> Program:
    """Return experts who each read all chunks of reviews and sum up, and a writer who reports.

    Helium's ``parallel``: seven experts, six chunks, so 42 extractions, 7 summaries and a report.
    An expert's extractions and summary begin with the same long instructions.

    Args:
        job: Equal jobs have equal texts.
        rng: Draws lengths.
        num_experts: At most seven; more would have no instructions.
        num_chunks: Chunks of reviews.

    Raises:
        WorkloadError: There are no experts, or too many, or no chunk.
    """
    at_least("num_experts", num_experts, 1)
    at_least("num_chunks", num_chunks, 1)
    at_least("experts that have instructions", len(_EXPERTS), num_experts)
    team = Team("product_insights", job, rng)
    item = team.own("item", ITEM)
    chunks = [team.own(f"reviews-{number}", REVIEWS) for number in range(num_chunks)]
    summaries = list[Output]()
    for expert, tokens in enumerate(_EXPERTS[:num_experts]):
        role = team.instructions(f"expert-{expert}", _EXPERT_HEAD + tokens)
        extract = prompt(role, team.instructions("extract", _EXTRACT), item)
        extracted = [
            team.ask(f"{expert}-extract-{number}", "extract", REMARK, extract, chunk)
            for number, chunk in enumerate(chunks)
        ]
        summarize = prompt(role, team.instructions("summarize", _SUMMARIZE), item)
        summaries.append(team.ask(f"{expert}-summary", "summary", REMARK, summarize, extracted))
    insights = [
        prompt(team.instructions(f"insights-from-{expert}", _INSIGHTS_FROM), summary)
        for expert, summary in enumerate(summaries)
    ]
    head = prompt(team.instructions("writer", _WRITER + _WRITE), item)
    return team.program([team.ask("report", "report", REPORT, head, *insights)])
