"""Traffic of agent frameworks with what each call really reads, made from a seed.

The multi-agent coding task has MetaGPT's prompts (architect, N coders, N reviewers, N revisers,
three rounds). Code is really revised: each version repeats most of the one before, files share
imports, helpers and idioms, and reviews quote the code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TASK = "Build a multi-player snake game server in Python with a REST API and a bot player. " * 3
_HEAD = "# Project\n{task}\n# Design (file structure and APIs)\n{design}\n"
_IMPORTS = (
    "from __future__ import annotations\n\nimport json\nimport logging\n"
    "from dataclasses import dataclass\n\nlogger = logging.getLogger(__name__)\n\n\n"
)
_HELPER = (
    "def load_json(path: str) -> dict[str, object]:\n"
    '    """Read a JSON file and return what it holds."""\n'
    "    with open(path, encoding='utf-8') as file:\n        return json.load(file)\n\n\n"
)
_NOUNS = (
    "player",
    "board",
    "snake",
    "score",
    "game",
    "session",
    "move",
    "bot",
    "token",
    "room",
    "record",
    "client",
    "state",
)
_VERBS = (
    "load",
    "save",
    "update",
    "check",
    "build",
    "find",
    "merge",
    "reset",
    "send",
    "parse",
    "render",
    "count",
)
_TYPES = ("int", "str", "float", "bool", "dict[str, int]", "list[str]")


@dataclass(frozen=True, slots=True)
class TrafficCall:
    """One call of a run.

    Attributes:
        name: Unique in the run.
        step: What kind of call it is.
        texts: Its messages' texts.
        reply: What the model said.
        reads: Names of the calls whose replies are in its prompt.
        waits: Which calls had ended when it began: all before this position.
    """

    name: str
    step: str
    texts: tuple[str, ...]
    reply: str
    reads: frozenset[str]
    waits: int


class _Writer:
    """Writes and revises code and prose."""

    def __init__(self, seed: int, *, talks: bool) -> None:
        self._rng = random.Random(seed)
        self._talks = talks

    def words(self, count: int) -> str:
        rng = self._rng
        return " ".join(f"{rng.choice(_VERBS)} the {rng.choice(_NOUNS)}" for _ in range(count))

    def function(self) -> str:
        rng = self._rng
        verb, noun, other = rng.choice(_VERBS), rng.choice(_NOUNS), rng.choice(_NOUNS)
        lines = [
            f"def {verb}_{noun}_{rng.randrange(100)}({other}: {rng.choice(_TYPES)}, "
            f"limit: int = {rng.randrange(64)}) -> {rng.choice(_TYPES)}:",
            f'    """{verb.capitalize()} the {noun} of the {other}."""',
        ]
        lines += [self.line() for _ in range(rng.randrange(3, 9))]
        return "\n".join([*lines, f"    return {noun}", "", "", ""])

    def line(self) -> str:
        rng = self._rng
        a, b = rng.choice(_NOUNS), rng.choice(_NOUNS)
        return rng.choice(
            (
                f"    {a} = {rng.choice(_VERBS)}_{b}({a}, {rng.randrange(1000)})",
                f"    if {a} is None:\n        raise ValueError('{a} is missing from the {b}')",
                f"    for {a} in sorted({b}.items()):\n        logger.info('%s', {a})",
                f"    logger.debug('the {a} of the {b} is %s', {a}[{rng.randrange(50)}])",
            )
        )

    def code(self) -> list[str]:
        functions = [self.function() for _ in range(self._rng.randrange(5, 10))]
        return (
            [_IMPORTS, _HELPER, *functions] if self._rng.random() < 0.5 else [_IMPORTS, *functions]
        )

    def revised(self, code: list[str]) -> list[str]:
        rng, after = self._rng, list(code)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(1, len(after))
            lines = after[place].split("\n")
            lines.insert(rng.randrange(2, max(3, len(lines) - 3)), self.line())
            after[place] = "\n".join(lines)
        if rng.random() < 0.5:
            after.insert(rng.randrange(1, len(after) + 1), self.function())
        return after

    def answer(self, code: list[str], what: str) -> str:
        block = "```python\n" + "".join(code).rstrip() + "\n```"
        if not self._talks:
            return block
        return f"Here is the complete code of the file, {what}:\n\n{block}\n\nI {self.words(9)}."

    def review(self, name: str, code: list[str]) -> str:
        lines = [f"Review of {name}: {self.words(4)}."]
        for number in range(1, self._rng.randrange(4, 8)):
            quoted = self._rng.choice("".join(code).split("\n"))
            lines.append(f"{number}. `{quoted.strip()}`: {self.words(6)}.")
        return "\n".join(lines)


def metagpt_calls(
    num_files: int,
    *,
    seed: int = 0,
    num_rounds: int = 3,
    talks: bool = False,
    shown_as: Callable[[str], str] = str,
) -> Iterator[TrafficCall]:
    """Yield the calls of the coding task, in an order in which they may arrive.

    Args:
        num_files: N; there are 1 + N + 2 * N * rounds calls.
        seed: Makes the texts.
        num_rounds: Rounds of review and revision.
        talks: Replies say something around their code, which MetaGPT's parser then cuts off.
        shown_as: What the program does to code before it shows it.
    """
    writer = _Writer(seed, talks=talks)
    names = [f"file_{i}.py" for i in range(num_files)]
    design = "Design\n" + "\n".join(f"{name}: {writer.words(12)}" for name in names * 2)
    outline = f"# Project\n{TASK}\nOutline the file structure and the APIs of every file."
    yield _call("design", "outline", "Architect, named Alice", outline, design, (), 0)
    head = _HEAD.format(task=TASK, design=design)
    codes = {name: writer.code() for name in names}
    made_by = {name: f"write {name}" for name in names}
    shown: dict[str, str] = {}
    for i, name in enumerate(names):
        ask = f"{head}Write the file `{name}`. Answer with one python code block."
        reply = writer.answer(codes[name], "as designed")
        yield _call(made_by[name], "write", f"Coder {i}, named Coder{i}", ask, reply, ["design"], 1)
        shown[name] = shown_as(_parsed(reply))
    ended = 1 + num_files
    for turn in range(num_rounds):
        body = "".join(f"## {name}\n```python\n{code}\n```\n" for name, code in shown.items())
        reads = ["design", *made_by.values()]
        reviews = {name: writer.review(name, codes[name]) for name in names}
        for i, name in enumerate(names):
            ask = f"{head}# Current code\n{body}Review the file `{name}`. List concrete comments."
            role = f"Reviewer {i}, named Rev{i}"
            yield _call(f"review {turn} {name}", "review", role, ask, reviews[name], reads, ended)
        ended += num_files
        for i, name in enumerate(names):
            ask = (
                f"{head}# Current code\n{body}# Review comments\n{reviews[name]}\n"
                f"Revise the file `{name}`. Answer with one python code block."
            )
            codes[name] = writer.revised(codes[name])
            reply = writer.answer(codes[name], f"revised in round {turn}")
            made_by[name] = f"revise {turn} {name}"
            read = [*reads, f"review {turn} {name}"]
            role = f"Coder {i}, named Coder{i}"
            yield _call(made_by[name], "revise", role, ask, reply, read, ended)
            shown[name] = shown_as(_parsed(reply))
        ended += num_files


def round_robin_calls(
    num_calls: int, *, num_agents: int = 3, seed: int = 0
) -> Iterator[TrafficCall]:
    """Yield the calls of agents that speak in turn and see all that was said, as in AutoGen."""
    writer = _Writer(seed, talks=False)
    said: list[str] = []
    for number in range(num_calls):
        agent = number % num_agents
        system = f"You are agent {agent} of a team, and {_VERBS[agent]} what the others say."
        reply = f"Agent {agent}: {writer.words(30)}.\n" + "".join(writer.code()[1:3])
        reads = frozenset(f"turn {i}" for i in range(number))
        yield TrafficCall(f"turn {number}", "turn", (system, TASK, *said), reply, reads, number)
        said.append(reply)


def _parsed(reply: str) -> str:
    """Return the code of an answer, as MetaGPT's parser does."""
    return reply.partition("```python\n")[2].partition("\n```")[0]


def _call(
    name: str, step: str, role: str, ask: str, reply: str, reads: object, waits: int
) -> TrafficCall:
    goal = "design a system" if step == "outline" else "write elegant, correct code"
    system = f"You are a {role}, your goal is {goal}. the constraint is . "
    assert isinstance(reads, list | tuple)
    return TrafficCall(name, step, (system, ask), reply, frozenset(reads), waits)
