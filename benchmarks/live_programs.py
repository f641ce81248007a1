"""Programs as they are submitted, for real servers: chains, map-reduces, chats, teams.

Each call generates a fixed number of tokens, so that runs differ by when things happen and by
nothing else. Texts follow from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine_lab import words

_LATENCY = {"kind": "latency"}
_THROUGHPUT = {"kind": "throughput"}


@dataclass(frozen=True, slots=True)
class LiveProgram:
    """A program.

    Attributes:
        app: What it is one of.
        nodes: Its calls, as in a submit.
        outputs: What is wanted, as in a submit.
    """

    app: str
    nodes: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]

    @property
    def body(self) -> dict[str, Any]:
        """The submit that sends it and waits for what is wanted."""
        nodes, outputs = list(self.nodes), list(self.outputs)
        return {"app": self.app, "nodes": nodes, "outputs": outputs, "close": True}


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a program is submitted, in seconds after the first could be."""

    at_s: float
    program: LiveProgram


def chain(seed: object, calls: int = 6, text_words: int = 250, tokens: int = 32) -> LiveProgram:
    """Return a summary that is made piece by piece, each call reading the one before."""
    nodes = []
    for number in range(calls):
        before = f"{{{{input:s{number - 1}}}}}" if number else ""
        prompt = f"{_instruction('chain')} {before} {words(text_words, (seed, number))}"
        nodes.append(_call(f"s{number}", prompt, tokens))
    return _program("chain", nodes, [f"s{calls - 1}"], _LATENCY)


def map_reduce(
    seed: object,
    maps: int = 8,
    text_words: int = 250,
    tokens: int = 32,
    criteria: Mapping[str, Any] = _LATENCY,
) -> LiveProgram:
    """Return a summary of parts side by side, and of the parts' summaries."""
    names = [f"m{number}" for number in range(maps)]
    nodes = [
        _call(name, f"{_instruction('map')} {words(text_words, (seed, name))}", tokens)
        for name in names
    ]
    nodes.append(_call("out", f"{_instruction('reduce')} {_reads(names)}", tokens))
    return _program("map_reduce", nodes, ["out"], criteria)


def bulk(seed: object) -> LiveProgram:
    """Return a map-reduce that nobody waits for in particular."""
    done = map_reduce(("bulk", seed), maps=8, text_words=400, criteria=_THROUGHPUT)
    return LiveProgram("bulk", done.nodes, done.outputs)


def chat(seed: object, text_words: int = 120, tokens: int = 48) -> LiveProgram:
    """Return a single call that somebody waits for."""
    return _program(
        "chat", [_call("reply", words(text_words, ("chat", seed)), tokens)], ["reply"], _LATENCY
    )


def copilot(seed: object, kinds: int = 4, system_words: int = 1200) -> LiveProgram:
    """Return a short question after the long instructions of one of some applications."""
    draw = random.Random(repr(("copilot", seed)))
    system = words(system_words, ("system", draw.randrange(kinds)))
    prompt = f"{system}\n{words(40, ('question', seed))}"
    return _program("copilot", [_call("reply", prompt, 32)], ["reply"], _LATENCY)


def team(seed: object, files: int = 4, tokens: int = 40) -> LiveProgram:
    """Return a team that writes a program: a design, files, reviews that read all files, files."""
    design = f"{_instruction('design')} {words(150, (seed, 'task'))}"
    nodes = [_call("design", design, tokens)]
    before, texts = ["design"], f"{_instruction('team')} {words(300, (seed, 'rules'))}"
    for stage in ("code", "review", "revise"):
        names = [f"{stage}{number}" for number in range(files)]
        nodes += [
            _call(name, f"{texts} {_reads(before)} {words(30, (seed, name))}", tokens)
            for name in names
        ]
        before = names
    return _program("team", nodes, before, _LATENCY)


def poisson(
    make: Callable[[object], LiveProgram], seed: object, number: int, rate_per_s: float
) -> list[Arrival]:
    """Return so many programs with exponential pauses between them, the first one at 0."""
    draw = random.Random(repr(("arrivals", seed)))
    found, at_s = [], 0.0
    for which in range(number):
        found.append(Arrival(at_s, make((seed, which))))
        at_s += draw.expovariate(rate_per_s)
    return found


def _instruction(kind: str) -> str:
    return words(30, ("instruction", kind))


def _reads(names: Sequence[str]) -> str:
    return " ".join(f"{{{{input:{name}}}}}" for name in names)


def _call(name: str, prompt: str, tokens: int) -> dict[str, Any]:
    sampling = {"max_tokens": tokens, "temperature": 0.0, "ignore_eos": True}
    text = f"{prompt} {{{{output:{name}}}}}"
    return {"kind": "call", "name": name, "prompt": text, "sampling": sampling}


def _program(
    app: str,
    nodes: Sequence[dict[str, Any]],
    wanted: Sequence[str],
    criteria: Mapping[str, Any],
) -> LiveProgram:
    outputs = ({"variable": name, "criteria": dict(criteria)} for name in wanted)
    return LiveProgram(app, tuple(nodes), tuple(outputs))
