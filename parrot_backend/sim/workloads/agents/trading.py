"""A trading house: analysts read documents, researchers debate, traders and risk analysts follow.

Helium's ``trading`` has four stages: four analysts who extract from their documents and sum up;
two researchers who debate, and their manager's plan; eight traders, each with three risk analysts
who debate and a judge; and the fund manager. With its settings these are 88 calls.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from parrot_backend.sim.program import Output, Piece, Program
from parrot_backend.sim.workloads.agents.lengths import (
    ANSWER,
    DOCUMENT,
    ITEM,
    NAME,
    REMARK,
    REPORT,
)
from parrot_backend.sim.workloads.agents.team import Team
from parrot_backend.sim.workloads.building import prompt
from parrot_backend.sim.workloads.checks import at_least

# Instructions, in Llama tokens, as they stand in ``prompts/fin_data``: system, extraction, summary.
_ANALYSTS = {
    "fundamentals": (217, 69, 159),
    "social": (252, 54, 127),
    "market": (998, 54, 116),
    "news": (188, 54, 156),
}
_RESEARCHERS = {"bull": 215, "bear": 241}
_RESEARCH_FIRST, _RESEARCH_NEXT, _RESEARCH_MANAGER = 125, 35, 222 + 25
_TRADERS = (185, 182, 180, 192, 185, 182, 180, 192)
_TRADE = 130
_RISK = {"risky": 154, "safe": 116, "neutral": 82}
_RISK_FIRST, _RISK_NEXT, _RISK_JUDGE = 190, 77, 250 + 65
_FUND_MANAGER = 186 + 246


def trading(
    job: str,
    rng: random.Random,
    num_traders: int = 8,
    num_rounds: int = 2,
    num_news: int = 5,
    num_posts: int = 3,
) -> Program:
    """Return the work on one stock; the fund manager's recommendation is wanted.

    Args:
        job: Equal jobs have equal texts.
        rng: Draws lengths.
        num_traders: At most eight; more would have no instructions.
        num_rounds: Rounds of each debate.
        num_news: Chunks of news.
        num_posts: Chunks of posts in social media.

    Raises:
        WorkloadError: Something there must be is not there, or there are too many traders.
    """
    counts = {"num_traders": num_traders, "num_rounds": num_rounds}
    for name, value in (counts | {"num_news": num_news, "num_posts": num_posts}).items():
        at_least(name, value, 1)
    at_least("traders that have instructions", len(_TRADERS), num_traders)
    team = Team("trading", job, rng)
    stock = team.own("stock", NAME)
    documents = {"fundamentals": 4, "social": num_posts, "market": 2, "news": num_news}
    reports = [_analyse(team, stock, name, number) for name, number in documents.items()]
    plan = _research(team, stock, reports, num_rounds)
    advice = [
        _trade(team, stock, reports, plan, trader, num_rounds) for trader in range(num_traders)
    ]
    head = team.instructions("fund-manager", _FUND_MANAGER)
    return team.program([team.ask("decision", "fund-manager", ANSWER, head, stock, advice)])


def _analyse(team: Team, stock: Sequence[Piece], name: str, num_documents: int) -> Output:
    system, extract, summarize = _ANALYSTS[name]
    role = team.instructions(f"{name}-analyst", system)
    # Only the analyst of the fundamentals is told what the company does.
    subject = prompt(stock, team.own("profile", ITEM)) if name == "fundamentals" else stock
    extracts = [
        team.ask(
            f"{name}-{number}",
            "extract",
            REMARK,
            role,
            team.instructions(f"{name}-extract", extract),
            subject,
            team.own(f"{name}-document-{number}", DOCUMENT),
        )
        for number in range(num_documents)
    ]
    head = prompt(role, team.instructions(f"{name}-summary", summarize), subject)
    return team.ask(f"{name}-report", "analyst", REPORT, head, extracts)


def _research(
    team: Team, stock: Sequence[Piece], reports: Sequence[Output], num_rounds: int
) -> Output:
    first = team.instructions("research", _RESEARCH_FIRST)
    told = {
        name: prompt(team.instructions(name, system), first, stock, reports)
        for name, system in _RESEARCHERS.items()
    }
    said = dict[str, Output]()
    debate = list[Output]()
    for number in range(num_rounds):
        if number:
            reply = team.instructions("research-reply", _RESEARCH_NEXT)
            told = {
                name: prompt(
                    told[name], said[name], reply, (s for n, s in said.items() if n != name)
                )
                for name in told
            }
        said = {
            name: team.ask(f"{name}-{number}", "researcher", ANSWER, told[name]) for name in told
        }
        debate += said.values()
    head = team.instructions("research-manager", _RESEARCH_MANAGER)
    return team.ask("plan", "research-manager", REPORT, head, stock, debate)


def _trade(
    team: Team,
    stock: Sequence[Piece],
    reports: Sequence[Output],
    plan: Output,
    trader: int,
    num_rounds: int,
) -> Output:
    role = team.instructions(f"trader-{trader}", _TRADERS[trader] + _TRADE)
    decision = team.ask(f"trader-{trader}", "trader", ANSWER, role, stock, plan)
    first = team.instructions("risk", _RISK_FIRST)
    told = {
        name: prompt(team.instructions(name, system), first, stock, reports, decision)
        for name, system in _RISK.items()
    }
    said = dict[str, Output]()
    debate = list[Output]()
    for number in range(num_rounds):
        if number:
            reply = team.instructions("risk-reply", _RISK_NEXT)
            told = {name: prompt(told[name], said[name], reply, said.values()) for name in told}
        said = {
            name: team.ask(f"{trader}-{name}-{number}", "risk-analyst", REMARK, told[name])
            for name in told
        }
        debate += said.values()
    head = team.instructions("risk-judge", _RISK_JUDGE)
    return team.ask(f"judge-{trader}", "risk-judge", ANSWER, head, stock, debate)
