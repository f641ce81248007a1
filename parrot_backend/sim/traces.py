"""Traces as others and we write them: one JSON object a line.

Mooncake's form, which Dynamo, AIPerf and SGLang read too, has a request a line: ``timestamp`` (ms),
``input_length``, ``output_length`` and ``hash_ids`` (blocks of 512 tokens; equal ids are equal
beginnings). Requests of tenants have ``tenant``, a field of ours. Our own form has a job a line: a
program with the time it begins (:mod:`parrot_backend.sim.program_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from parrot_backend.sim.json_lines import (
    BadRowError,
    ReadReport,
    Row,
    array,
    checked_whole,
    number,
    read_rows,
    string,
    whole_number,
    write_rows,
)
from parrot_backend.sim.program import DEFAULT_TENANT, Arrival
from parrot_backend.sim.program_rows import row_of, take_arrival
from parrot_backend.sim.workloads.checks import MAX_TOKENS, at_least, positive
from parrot_backend.sim.workloads.replayed import replay
from parrot_backend.sim.workloads.tables import MOONCAKE_BLOCK_TOKENS, TracedRequest

_MOONCAKE_FIELDS = frozenset({"timestamp", "input_length", "output_length", "hash_ids", "tenant"})
_MAX_ID = 2**63 - 1


def read_arrivals(path: Path, report: ReadReport, speed: float = 1.0) -> Iterator[Arrival]:
    """Return the jobs of a trace in either form; the first line that is an object tells which.

    Args:
        path: The file.
        report: Is told of every line.
        speed: So many times as fast as recorded.

    Raises:
        OSError: The file cannot be read.
        WorkloadError: The speed is not above zero.
    """
    positive("speed", speed)
    with closing(read_rows(path, lambda row: row, ReadReport())) as rows:
        first_row = next(rows, {})
    if "parrot_job" not in first_row:
        return replay(read_mooncake(path, report), path.name.partition(".")[0], speed=speed)
    jobs = read_programs(path, report)
    return (Arrival(job.time_s / speed, job.program, job.user) for job in jobs)


def read_mooncake(
    path: Path, report: ReadReport, block_tokens: int = MOONCAKE_BLOCK_TOKENS
) -> Iterator[TracedRequest]:
    """Return the requests of a trace in Mooncake's form, one by one.

    Lines that cannot be meant so are left out and reported: no JSON, fields that are missing or out
    of bounds, more blocks than the prompt has, or a time before that of the line before. Fields of
    other names are ignored and reported. ``hash_ids`` may be absent, or end before the prompt;
    ``tenant`` may be absent.

    Args:
        path: The file; with the ending ``.gz`` a compressed one.
        report: Is told of every line.
        block_tokens: Tokens of one block.

    Raises:
        OSError: The file cannot be read.
        WorkloadError: A block is to have no tokens.
    """
    at_least("block_tokens", block_tokens, 1)
    return read_rows(path, _mooncake_taker(report, block_tokens), report)


def write_mooncake(path: Path, requests: Iterable[TracedRequest]) -> int:
    """Write requests in Mooncake's form, and return how many; an interrupt keeps those so far.

    Raises:
        OSError: The file cannot be written.
    """
    return write_rows(path, map(_mooncake_row, requests))


def read_programs(path: Path, report: ReadReport) -> Iterator[Arrival]:
    """Return the jobs of a trace in our own form, one by one; see :func:`read_mooncake`.

    Raises:
        OSError: The file cannot be read.
    """
    in_order = _in_order()

    def take(row: Row) -> Arrival:
        arrival = take_arrival(row)
        in_order(arrival.time_s)
        return arrival

    return read_rows(path, take, report)


def write_programs(path: Path, arrivals: Iterable[Arrival]) -> int:
    """Write jobs in our own form, and return how many; an interrupt keeps those so far.

    Raises:
        OSError: The file cannot be written.
    """
    return write_rows(path, map(row_of, arrivals))


def _mooncake_row(request: TracedRequest) -> Row:
    row: dict[str, object] = {
        "timestamp": request.time_ms,
        "input_length": request.prompt_tokens,
        "output_length": request.output_tokens,
        "hash_ids": request.block_ids,
    }
    if request.tenant != DEFAULT_TENANT:
        row["tenant"] = request.tenant
    return row


def _mooncake_taker(report: ReadReport, block_tokens: int) -> Callable[[Row], TracedRequest]:
    in_order = _in_order()

    def take(row: Row) -> TracedRequest:
        prompt_tokens = whole_number(row, "input_length", 1, MAX_TOKENS)
        output_tokens = whole_number(row, "output_length", 1, MAX_TOKENS)
        ids = array(row, "hash_ids")
        if len(ids) > -(-prompt_tokens // block_tokens):
            raise BadRowError(
                f"a prompt of {prompt_tokens} tokens has not {len(ids)} blocks of {block_tokens}"
            )
        blocks = _ids(ids)
        tenant = string(row, "tenant", DEFAULT_TENANT)
        time_ms = number(row, "timestamp")
        in_order(time_ms)
        if len(row) > len(_MOONCAKE_FIELDS) or not row.keys() <= _MOONCAKE_FIELDS:
            report.ignore(row.keys() - _MOONCAKE_FIELDS)
        return TracedRequest(round(time_ms), prompt_tokens, output_tokens, blocks, tenant)

    return take


def _ids(values: list[object]) -> tuple[int, ...]:
    return tuple([checked_whole(one, "hash_ids", -_MAX_ID, _MAX_ID) for one in values])


def _in_order() -> Callable[[float], None]:
    """Return a check that times do not run backwards."""
    latest = 0.0

    def check(time: float) -> None:
        nonlocal latest
        if time < latest:
            raise BadRowError(f"its time {time:g} is before {latest:g}, that of a line before")
        latest = time

    return check
