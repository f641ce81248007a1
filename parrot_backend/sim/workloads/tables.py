"""The tables of lengths in ``sim/data``, read once; ``SOURCES.md`` there says whose they are."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import StringIO

from parrot_backend.sim.program import DEFAULT_TENANT

#: Tokens of a block of the Mooncake trace.
MOONCAKE_BLOCK_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Lengths:
    """A prompt and what was made of it, in tokens."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class GptLengths:
    """One of the four GPTs: system prompt, user's query and output, in tokens."""

    application: str
    system_tokens: int
    query_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class MetagptCall:
    """One recorded call; ``shared_tokens`` begin the prompts of all calls of its round."""

    file: str
    prompt_tokens: int
    output_tokens: int
    shared_tokens: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of a session: what came new after the output before it, and its own output."""

    new_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """A request of a trace.

    Attributes:
        time_ms: Since the trace began.
        block_ids: Equal ids are equal beginnings up to and with this block of 512 tokens; empty
            where the trace tells nothing.
        tenant: Whose it is.
    """

    time_ms: int
    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()
    tenant: str = DEFAULT_TENANT


@lru_cache(maxsize=1)
def arxiv_chunks() -> dict[tuple[str, int, int], tuple[int, ...]]:
    """Return lengths of chunks by set of articles, number of the article, and chunk size."""
    return {
        (row["set"], int(row["article"]), int(row["chunk_size"])): tuple(
            map(int, row["tokens"].split())
        )
        for row in _rows("arxiv_chunks.csv")
    }


@lru_cache(maxsize=1)
def copilot() -> tuple[Lengths, ...]:
    """Return the 64 requests of the paper's figure 15."""
    return tuple(
        Lengths(int(row["prompt_tokens"]), int(row["output_tokens"]))
        for row in _rows("copilot.csv")
    )


@lru_cache(maxsize=1)
def four_gpts() -> tuple[GptLengths, ...]:
    """Return the four applications of the paper's figure 17."""
    return tuple(
        GptLengths(
            row["application"],
            int(row["prompt_tokens"]),
            int(row["query_tokens"]),
            int(row["output_tokens"]),
        )
        for row in _rows("four_gpts.csv")
    )


@lru_cache(maxsize=1)
def metagpt() -> dict[str, tuple[MetagptCall, ...]]:
    """Return the recorded calls by round, r0 to r7."""
    rounds = dict[str, list[MetagptCall]]()
    for row in _rows("metagpt.csv"):
        rounds.setdefault(row["round"], []).append(
            MetagptCall(
                row["file"],
                int(row["prompt_tokens"]),
                int(row["output_tokens"]),
                int(row["shared_tokens"]),
            )
        )
    return {name: tuple(calls) for name, calls in rounds.items()}


@lru_cache(maxsize=1)
def sharegpt() -> tuple[Lengths, ...]:
    """Return 300 chats."""
    return tuple(
        Lengths(int(row["prompt_tokens"]), int(row["output_tokens"]))
        for row in _rows("sharegpt.csv")
    )


@lru_cache(maxsize=1)
def swe_agent() -> tuple[tuple[Turn, ...], ...]:
    """Return the 22 sessions of SWE-agent."""
    sessions = dict[str, list[Turn]]()
    for row in _rows("swe_agent.csv"):
        turn = Turn(int(row["new_tokens"]), int(row["output_tokens"]))
        sessions.setdefault(row["session"], []).append(turn)
    return tuple(map(tuple, sessions.values()))


def azure_conversation() -> Iterator[TracedRequest]:
    """Return the Azure trace of 2023, conversations, in order of time."""
    return _trace("azure_conversation.csv.gz")


def mooncake_conversation() -> Iterator[TracedRequest]:
    """Return the Mooncake trace of conversations, in order of time."""
    return _trace("mooncake_conversation.csv.gz")


def _trace(name: str) -> Iterator[TracedRequest]:
    time_ms = 0
    for row in _rows(name):
        time_ms += int(row["gap_ms"])
        yield TracedRequest(
            time_ms,
            int(row["prompt_tokens"]),
            int(row["output_tokens"]),
            tuple(_ids(row.get("blocks", ""))),
        )


def _ids(runs: str) -> Iterator[int]:
    for run in runs.split():
        first, _, more = run.partition("+")
        yield from range(int(first), int(first) + int(more or 0) + 1)


def _rows(name: str) -> Iterator[dict[str, str]]:
    data = (files("parrot_backend.sim") / "data" / name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    return csv.DictReader(StringIO(data.decode()))
