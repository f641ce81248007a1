"""Runs made by hand, for the parts of the demo that need no server."""

from __future__ import annotations

from parrot_backend.demo.measure import Pair
from parrot_backend.demo.records import CallRecord, Mode, Phase, PhaseKind, RunRecord


def call(name, engine_s=0.1, needs=(), begin_s=0.0, cached_tokens=0):
    half_s = engine_s / 2
    return CallRecord(
        name=name,
        phases=(
            Phase(PhaseKind.QUEUE, begin_s, begin_s + 0.01),
            Phase(PhaseKind.PREFILL, begin_s + 0.01, begin_s + half_s),
            Phase(PhaseKind.DECODE, begin_s + half_s, begin_s + engine_s),
        ),
        needs=needs,
        engine_s=engine_s,
        prompt_tokens=100,
        cached_tokens=cached_tokens,
        completion_tokens=8,
    )


def run(mode, e2e_s, calls, round_trips=1, text="noise"):
    return RunRecord(mode, e2e_s, round_trips, tuple(calls), text, timeline={"traceEvents": []})


def chain_pair(ordinary_s, parrot_s, text="noise"):
    """Two calls of 0.1 s, one after the other."""
    ordinary = run(Mode.CALL_BY_CALL, ordinary_s, [call("part 1"), call("part 2")], 2)
    calls = [call("part 1"), call("part 2", needs=("part 1",), cached_tokens=32)]
    return Pair(ordinary, run(Mode.ONE_SUBMIT, parrot_s, calls, text=text))
