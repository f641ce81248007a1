"""What control flow costs the core: no engine, no HTTP, no clock; only ``Coordinator.handle``.

*expand* is the event that brings the list of a map, with one call per item, against *submit*, the
same calls in one submit by a client that knows the list: the price of not knowing it.

*rounds* is one event that ends a call in a map of loops, so that another round begins. Deduction
is amortised, against *each*, where it goes over the whole session each time. The last request has
its place before all others are finished, so both do the same otherwise.

    python -m benchmarks.bench_control [--save]
"""

from __future__ import annotations

import argparse
import gc
import json
import time

from benchmarks.common import Cell, Spread, append_rows, cells, spread
from parrot_backend.core import progress
from parrot_backend.core.commands import StartRequest
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.control_specs import BodySpec, Condition, LoopSpec, LoopVariable, MapSpec
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import (
    CallSpec,
    EngineInfo,
    EngineJoined,
    Event,
    GraphSubmitted,
    NodeSpec,
    RequestFinished,
    RequestUsage,
    VariableSet,
    VariableSpec,
    Wanted,
)
from parrot_backend.core.ids import EngineId, SessionId, VariableId, variable_id
from parrot_backend.core.prompt import Input, Output, Text
from parrot_backend.core.sampling import Sampling

_SESSION = SessionId("s")
_USAGE = RequestUsage(prompt_tokens=20, completion_tokens=16)
_EACH = 10**9


def _var(name: str) -> VariableId:
    return variable_id(_SESSION, name)


def _call(output: str, *inputs: str) -> CallSpec:
    segments = (Text(f"make {output} of "), *(Input(_var(name)) for name in inputs))
    return CallSpec(output, (*segments, Output(_var(output), Sampling(max_tokens=16))))


def _timed(core: Coordinator, event: Event) -> tuple[float, list[StartRequest]]:
    start_s = time.perf_counter()
    commands = core.handle(event, 0.0)
    elapsed_s = time.perf_counter() - start_s
    return elapsed_s, [c for c in commands if isinstance(c, StartRequest)]


def _core(max_requests: int) -> Coordinator:
    core = Coordinator(CoreConfig())
    info = EngineInfo(EngineId("e"), ("m",), 8192, 10**7, 10**7, max_requests)
    core.handle(EngineJoined(info), 0.0)
    return core


def _submitted(*nodes: NodeSpec, items: str | None, wanted: str = "r") -> GraphSubmitted:
    return GraphSubmitted(
        _SESSION,
        True,
        variables=(VariableSpec("items", items), VariableSpec("topic", "tea")),
        nodes=nodes,
        wanted=(Wanted(_var(wanted), Criteria(CriteriaKind.LATENCY)),),
    )


def expand_s(num_items: int) -> float:
    """Return the seconds that the list of a map takes to become calls."""
    core = _core(max_requests=16)
    body = BodySpec((_call("y", "item", "topic"),), _var("y"))
    over = MapSpec("m", Input(_var("items")), _var("item"), body, _var("out"), 1024)
    core.handle(_submitted(over, _call("r", "out"), items=None), 0.0)
    gc.collect()
    items = json.dumps([f"item {i}" for i in range(num_items)])
    return _timed(core, VariableSet(_var("items"), items))[0]


def submit_s(num_items: int) -> float:
    """Return the seconds that a submit of as many calls takes."""
    core = _core(max_requests=16)
    calls = [_call(f"y{i}", "items", "topic") for i in range(num_items)]
    combine = _call("r", *(f"y{i}" for i in range(num_items)))
    event = _submitted(*calls, combine, items="item")
    gc.collect()
    return _timed(core, event)[0]


def round_s(num_loops: int, *, is_amortised: bool) -> list[float]:
    """Return the seconds of each event that begins another round, in a map of loops."""
    before = progress._DEDUCED_PER_NEW
    progress._DEDUCED_PER_NEW = before if is_amortised else _EACH
    try:
        core = _core(max_requests=2 * num_loops)
        body = BodySpec((_call("y", "p"),), _var("y"))
        until = Condition(Input(_var("y")), "contains", "never")
        variable = LoopVariable(_var("p"), _var("item"), _var("y"))
        loop = LoopSpec("l", (variable,), body, until, 3, _var("last"))
        over = MapSpec(
            "m",
            Input(_var("items")),
            _var("item"),
            BodySpec((loop,), _var("last")),
            _var("out"),
            1024,
        )
        items = json.dumps(list(range(num_loops)))
        _, started = _timed(core, _submitted(over, _call("r", "out"), items=items))
        gc.collect()
        times = []
        for start in started:
            event = RequestFinished(start.attempt, "go on", None, "stop", _USAGE)
            times.append(_timed(core, event)[0])
        return times
    finally:
        progress._DEDUCED_PER_NEW = before


def _row(name: str, number: int, base: Spread, change: Spread) -> dict[str, Cell]:
    print(
        f"{name:>8} {number:>6} | {base!s:>24} {change!s:>24} {base.median / change.median:>7.2f}x"
    )
    return {"case": name, "number": number} | cells("base_ms", base) | cells("change_ms", change)


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--save", action="store_true", help="append to results/control.csv")
    arguments = parser.parse_args()
    trials = range(arguments.trials)
    rows = []
    print("    case number |       baseline ms [p20, p80]      change ms [p20, p80]   ratio")
    for number in (10, 100, 1000):
        pairs = [(submit_s(number) * 1e3, expand_s(number) * 1e3) for _ in trials]
        base, change = (spread(list(times)) for times in zip(*pairs, strict=True))
        rows.append(_row("expand", number, base, change))
    for number in (10, 100, 800):
        each = [s * 1e3 for s in round_s(number, is_amortised=False)]
        amortised = [s * 1e3 for s in round_s(number, is_amortised=True)]
        mean = Spread(sum(amortised) / len(amortised), *spread(amortised)[1:])
        mean_each = Spread(sum(each) / len(each), *spread(each)[1:])
        rows.append(_row("rounds", number, mean_each, mean))
    if arguments.save:
        print(f"rows appended to {append_rows('control', rows)}")


if __name__ == "__main__":
    main()
