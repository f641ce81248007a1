"""Workflows that answer questions on a text: a panel of experts, a debate, reflection by critics.

Helium asks six questions on each context of TAT-QA; so does a job here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from parrot_backend.sim.program import Output, Piece, Program
from parrot_backend.sim.workloads.agents.lengths import ANSWER, CONTEXT, QUESTION, REMARK
from parrot_backend.sim.workloads.agents.team import Team
from parrot_backend.sim.workloads.building import prompt
from parrot_backend.sim.workloads.checks import at_least

# Instructions, in Llama tokens, as they stand in the workflows' ``base.py``.
_ON_CONTEXT, _EXPLAIN, _ROLE = 18, 30, 9
_EXPERT_SYSTEM, _SUMMARIZER_SYSTEM, _SUMMARIZE, _ANSWER_OF = 18, 19, 38, 8
_DEBATER_SYSTEM, _OTHERS, _OTHER, _REVISE = 9, 12, 8, 46
_ANALYST_SYSTEM, _ANALYST = 168, 65
_EXTRACTION_SYSTEM, _EXTRACTION, _CALCULATION_SYSTEM, _CALCULATION = 99, 29, 104, 36
_FINAL = 26


def expert_panel(
    job: str, rng: random.Random, num_experts: int = 7, num_questions: int = 6
) -> Program:
    """Return experts of different roles who answer by themselves, and one who sums up.

    Helium's ``map_reduce``, with the seven experts that it has for TAT-QA.

    Args:
        job: Equal jobs have equal texts.
        rng: Draws lengths.
        num_experts: Roles.
        num_questions: Questions on one context.

    Raises:
        WorkloadError: There is no expert, or no question.
    """
    at_least("num_experts", num_experts, 1)
    team = Team("expert_panel", job, rng)
    context = _context(team)
    summaries = list[Output]()
    for asked in _questions(team, num_questions):
        number = len(summaries)
        answers = [
            team.ask(
                f"{number}-expert-{expert}",
                "expert",
                ANSWER,
                team.instructions("expert", _EXPERT_SYSTEM),
                context,
                asked,
                team.instructions(f"role-{expert}", _ROLE),
            )
            for expert in range(num_experts)
        ]
        parts = [
            prompt(team.instructions(f"answer-of-{expert}", _ANSWER_OF), answer)
            for expert, answer in enumerate(answers)
        ]
        head = team.instructions("summarizer", _SUMMARIZER_SYSTEM + _SUMMARIZE)
        name = f"{number}-summary"
        summaries.append(team.ask(name, "summary", ANSWER, head, context, asked, *parts))
    return team.program(summaries)


def debate(
    job: str,
    rng: random.Random,
    num_agents: int = 3,
    num_rounds: int = 2,
    num_questions: int = 6,
) -> Program:
    """Return agents who answer, read each other's answers and revise; all last ones are wanted.

    Helium's ``debate``: three agents, two rounds; each goes on with its own conversation.

    Args:
        job: Equal jobs have equal texts.
        rng: Draws lengths.
        num_agents: Roles.
        num_rounds: The first answer is one of them.
        num_questions: Questions on one context.

    Raises:
        WorkloadError: There is no agent, no round, or no question.
    """
    at_least("num_agents", num_agents, 1)
    at_least("num_rounds", num_rounds, 1)
    team = Team("debate", job, rng)
    context = _context(team)
    last = list[Output]()
    for number, asked in enumerate(_questions(team, num_questions)):
        head = prompt(team.instructions("debater", _DEBATER_SYSTEM), context, asked)
        told = [prompt(head, team.instructions(f"role-{a}", _ROLE)) for a in range(num_agents)]
        said = list[Output]()
        for turn in range(num_rounds):
            if turn:
                told = [_told(team, told[a], said, a) for a in range(num_agents)]
            stage = "revision" if turn else "answer"
            said = [
                team.ask(f"{number}-{turn}-{agent}", stage, ANSWER, told[agent])
                for agent in range(num_agents)
            ]
        last += said
    return team.program(last)


def reflection(job: str, rng: random.Random, num_questions: int = 6) -> Program:
    """Return an analyst, two critics one after the other, and the analyst's final answer.

    Helium's ``reflection``: the second critic reads the first; the analyst goes on with its own
    conversation.

    Args:
        job: Equal jobs have equal texts.
        rng: Draws lengths.
        num_questions: Questions on one context.

    Raises:
        WorkloadError: There is no question.
    """
    team = Team("reflection", job, rng)
    context = team.own("context", CONTEXT)
    extraction = prompt(team.instructions("extraction", _EXTRACTION_SYSTEM + _EXTRACTION), context)
    calculation = prompt(
        team.instructions("calculation", _CALCULATION_SYSTEM + _CALCULATION), context
    )
    head = prompt(team.instructions("analyst", _ANALYST_SYSTEM + _ANALYST), context)
    finals = list[Output]()
    for number in range(at_least("num_questions", num_questions, 1)):
        question = team.own(f"question-{number}", QUESTION)
        analyst = prompt(head, question)
        answer = team.ask(f"{number}-answer", "answer", ANSWER, analyst)
        first = team.ask(f"{number}-extraction", "extraction", REMARK, extraction, question, answer)
        second = team.ask(
            f"{number}-calculation", "calculation", REMARK, calculation, question, answer, first
        )
        asked = prompt(analyst, answer, team.instructions("final", _FINAL))
        finals.append(team.ask(f"{number}-final", "final", ANSWER, asked, first, second))
    return team.program(finals)


def _context(team: Team) -> tuple[Piece, ...]:
    return prompt(team.instructions("on-context", _ON_CONTEXT), team.own("context", CONTEXT))


def _questions(team: Team, num_questions: int) -> list[tuple[Piece, ...]]:
    return [
        prompt(team.own(f"question-{number}", QUESTION), team.instructions("explain", _EXPLAIN))
        for number in range(at_least("num_questions", num_questions, 1))
    ]


def _told(
    team: Team, before: Sequence[Piece], said: Sequence[Output], agent: int
) -> tuple[Piece, ...]:
    """Return an agent's conversation with its last answer, and what the others have said."""
    others = [
        prompt(team.instructions("other", _OTHER), answer)
        for other, answer in enumerate(said)
        if other != agent
    ]
    head = prompt(before, said[agent], team.instructions("others", _OTHERS))
    return prompt(head, *others, team.instructions("revise", _REVISE))
