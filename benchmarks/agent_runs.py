"""Runs of agents that read what the model really said, through any ``ask``; no framework needed.

The coding team has MetaGPT's prompts (``examples/metagpt/team.py``) and its barrier after each
stage; in a round robin each agent sees all that was said, as in AutoGen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.engine_lab import words

Message = dict[str, str]
Ask = Callable[[list[Message]], Awaitable[str]]

NUM_FILES, NUM_ROUNDS = 4, 3
NUM_AGENTS, NUM_TURNS = 3, 12
_TASK_WORDS = 120


async def coding_team(ask: Ask, seed: object) -> None:
    """Let an architect, four coders and four reviewers write a project in three rounds."""
    task = words(_TASK_WORDS, seed)

    async def say(role: str, text: str) -> str:
        system = f"You are a {role}, your goal is to write elegant, correct code. "
        return await ask([{"role": "system", "content": system}, {"role": "user", "content": text}])

    design = await say("Architect", f"# Project\n{task}\n\nOutline the files and their APIs.")
    head = f"# Project\n{task}\n\n# Design: files and their APIs\n{design}\n\n"
    files = range(NUM_FILES)
    writes = (say(f"Coder {i}", f"{head}Write the file `module_{i}.py`.") for i in files)
    codes = await asyncio.gather(*writes)
    for _ in range(NUM_ROUNDS):
        shown = "".join(f"## module_{i}.py\n```\n{code}\n```\n" for i, code in enumerate(codes))
        body = f"{head}# Code\n{shown}\n"
        comments = (say(f"Reviewer {i}", f"{body}Review the file `module_{i}.py`.") for i in files)
        reviews = await asyncio.gather(*comments)
        changes = (
            say(f"Coder {i}", f"{body}# Review\n{reviews[i]}\n\nRevise the file `module_{i}.py`.")
            for i in files
        )
        codes = await asyncio.gather(*changes)


async def round_robin(ask: Ask, seed: object) -> None:
    """Let three agents speak in turn."""
    said = [{"role": "user", "content": words(_TASK_WORDS, seed)}]
    for turn in range(NUM_TURNS):
        agent = turn % NUM_AGENTS
        system = f"You are agent {agent} of a team. {words(60, ('agent', agent))}"
        reply = await ask([{"role": "system", "content": system}, *said])
        said.append({"role": "user", "content": f"Agent {agent}: {reply}"})
