"""The paper's multi-agent programming task in plain MetaGPT: it knows nothing of Parrot.

An architect outlines the files; a coder for each writes it; in each round a reviewer for each file
reads all of them, and its coder revises it: 1 + N + 2 N R calls for N files and R rounds.
"""

from __future__ import annotations

from typing import Any

from examples.metagpt import workplace  # noqa: F401 - before metagpt

# isort: split
from metagpt.actions import Action, UserRequirement
from metagpt.config2 import Config
from metagpt.context import Context
from metagpt.roles.role import Role
from metagpt.schema import Message
from metagpt.team import Team
from metagpt.utils.common import CodeParser

TASK = (
    "Build a multi-player snake game server in Python: a REST API for players and scores, a game "
    "loop with collisions and food, persistence of high scores, and a bot that plays by itself."
)
_PROJECT = "# Project\n{task}\n\n# Design: files and their APIs\n{design}\n\n"


class Outline(Action):
    """The architect's."""

    async def run(self, task: str) -> str:
        """Return the design."""
        return await self._aask(
            f"# Project\n{task}\n\nOutline the files of the project and the API of each."
        )


class WriteCode(Action):
    """A coder's first."""

    async def run(self, task: str, design: str, file: str) -> str:
        """Return the code of a file."""
        reply = await self._aask(
            _PROJECT.format(task=task, design=design)
            + f"Write the file `{file}`. Answer with one Python code block."
        )
        return CodeParser.parse_code(block=None, text=reply, lang="python")


class Review(Action):
    """A reviewer's."""

    async def run(self, task: str, design: str, files: str, file: str) -> str:
        """Return comments on a file."""
        return await self._aask(
            _PROJECT.format(task=task, design=design)
            + f"# Code\n{files}\nReview the file `{file}`. List concrete comments."
        )


class Revise(Action):
    """A coder's, as often as there are rounds."""

    async def run(self, task: str, design: str, files: str, file: str, review: str) -> str:
        """Return the new code of a file."""
        reply = await self._aask(
            _PROJECT.format(task=task, design=design)
            + f"# Code\n{files}\n# Review\n{review}\n\n"
            + f"Revise the file `{file}`. Answer with one Python code block."
        )
        return CodeParser.parse_code(block=None, text=reply, lang="python")


def heard(role: Role, *actions: type[Action]) -> list[Message]:
    """Return what a role has heard of actions, oldest first (``get_by_actions`` has no order)."""
    names = {f"{action.__module__}.{action.__name__}" for action in actions}
    return [message for message in role.rc.memory.get() if message.cause_by in names]


def project_of(role: Role) -> tuple[str, str]:
    """Return the task and the design."""
    return heard(role, UserRequirement)[0].content, heard(role, Outline)[0].content


def newest_files(role: Role) -> dict[str, str]:
    """Return what the coders wrote last, by file."""
    found = {message.role: message.content for message in heard(role, WriteCode, Revise)}
    return dict(sorted(found.items()))


def shown(files: dict[str, str]) -> str:
    """Return files as prompts show them."""
    return "".join(f"## {file}\n```python\n{code}\n```\n" for file, code in files.items())


class _Member(Role):
    """A role that says what it made, and remembers it."""

    file: str = ""

    async def _act(self) -> Message:
        text = await self.work()
        message = Message(content=text, role=self.file, cause_by=type(self.rc.todo), sent_from=self)
        self.rc.memory.add(message)
        return message

    async def work(self) -> str:
        """Return the text of what it made."""
        raise NotImplementedError


class Architect(_Member):
    """Designs, once."""

    goal: str = "design a concise, complete software system"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_actions([Outline])
        self._watch([UserRequirement])

    async def work(self) -> str:
        """Do what is to do."""
        return await self.rc.todo.run(heard(self, UserRequirement)[0].content)


class Coder(_Member):
    """Writes and revises one file."""

    goal: str = "write elegant, correct code"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_actions([WriteCode, Revise])
        self._watch([Outline, Review])

    async def _think(self) -> bool:
        self._set_state(1 if heard(self, Review) else 0)
        return True

    async def work(self) -> str:
        """Do what is to do."""
        task, design = project_of(self)
        reviews = [m.content for m in heard(self, Review) if m.role == self.file]
        if not reviews:
            return await self.rc.todo.run(task, design, self.file)
        files = shown(newest_files(self))
        return await self.rc.todo.run(task, design, files, self.file, reviews[-1])


class Reviewer(_Member):
    """Reviews one file in each round."""

    goal: str = "find bugs and inconsistencies"
    rounds: int = 3
    done: int = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_actions([Review])
        self._watch([WriteCode, Revise])

    async def _act(self) -> Message | None:
        if self.done == self.rounds:
            return None
        self.done += 1
        return await super()._act()

    async def work(self) -> str:
        """Do what is to do."""
        task, design = project_of(self)
        return await self.rc.todo.run(task, design, shown(newest_files(self)), self.file)


def make_team(config: Config, num_files: int, rounds: int, role: str = "") -> Team:
    """Return a team; profiles must differ, because the environment keeps roles by profile.

    Args:
        config: Which model to use.
        num_files: How many files the project has.
        rounds: How often each is reviewed and revised.
        role: What all system messages say; else each names its role.
    """
    team = Team(context=Context(config=config))
    common, numbers = {"context": team.env.context, "desc": role}, range(num_files)
    team.hire(
        [
            Architect(**common, name="Alice", profile="Architect"),
            *(
                Coder(**common, name=f"Coder{i}", profile=f"Coder {i}", file=name_of(i))
                for i in numbers
            ),
            *(
                Reviewer(
                    **common,
                    name=f"Reviewer{i}",
                    profile=f"Reviewer {i}",
                    file=name_of(i),
                    rounds=rounds,
                )
                for i in numbers
            ),
        ]
    )
    team.invest(10.0)
    return team


def name_of(number: int) -> str:
    """Return the name of a file."""
    return f"module_{number}.py"


async def write_project(
    config: Config, num_files: int = 4, rounds: int = 3, task: str = TASK, role: str = ""
) -> dict[str, str]:
    """Let a team write a project and return its files; what it has not written is missing."""
    team = make_team(config, num_files, rounds, role)
    await team.run(n_round=2 * rounds + 3, idea=task, auto_archive=False)
    return newest_files(team.env.get_role("Reviewer 0"))
