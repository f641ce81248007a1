from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core import lengths
from parrot_backend.core.config import CoreConfig, LengthConfig
from parrot_backend.sim import texts
from parrot_backend.sim.program import Arrival, Constant, Output
from parrot_backend.sim.records import JobRecord, RecordSink
from parrot_backend.sim.simulation import Ending, Simulation
from parrot_backend.sim.spec import ClientSpec, Delay, Fault
from tests.core.hypothesis_settings import examples
from tests.sim.constant_engine import ConstantEngine, make_spec
from tests.sim.programs import CONFIG, NO_NETWORK, Records, make_call, make_chain, make_program, run
from tests.sim.random_programs import arrivals, faults

_ROOT = Path(__file__).parent.parent.parent
_NETWORK = Delay(0.2, 0.3)


@examples(40, shrinks=False)
@given(
    arrivals(),
    faults(3),
    st.sampled_from(["graph", "calls"]),
    st.booleans(),
    st.sampled_from([0.0, 0.03]),
)
def test_every_job_ends_with_one_record_whatever_happens(
    arriving: list[Arrival], happening: list[Fault], kind: Any, has_plugin: bool, overhead_s: float
) -> None:
    rules = "parrot" if has_plugin else "vllm"
    specs = [make_spec(rules=rules, call_overhead_s=overhead_s)] * 3
    records, ending = run(arriving, ClientSpec(kind, _NETWORK), specs, faults=happening)
    assert sorted(record.job for record in records.jobs) == list(range(len(arriving)))
    assert (ending.reason, ending.num_jobs) == ("done", len(arriving))
    ended = {(record.job, record.call) for record in records.calls}
    assert len(ended) == len(records.calls)
    for record in records.jobs:
        wanted = {name for name, _ in arriving[record.job].program.wanted}
        if not record.failed:
            assert {(record.job, name) for name in wanted} <= ended


@examples(25, shrinks=False)
@given(arrivals(), faults(2), st.sampled_from(["graph", "calls"]), st.integers(0, 5))
def test_the_same_seed_gives_the_same_records(
    arriving: list[Arrival], happening: list[Fault], kind: Any, seed: int
) -> None:
    found = [
        run(arriving, ClientSpec(kind, _NETWORK), [make_spec()] * 2, seed=seed, faults=happening)
        for _ in range(2)
    ]
    assert found[0] == found[1]


def test_another_seed_gives_others() -> None:
    arriving = [Arrival(0.0, make_chain(3))]
    spec = ClientSpec("calls", _NETWORK)
    assert run(arriving, spec, seed=1) != run(arriving, spec, seed=2)


_PRINT_RECORDS = """
from parrot_backend.sim.spec import ClientSpec, Delay, Fault
from tests.sim.programs import *
chain = make_chain(3)
arriving = [Arrival(0.05 * i, chain, "ann" if i % 3 else "") for i in range(40)]
for kind in ("graph", "calls"):
    spec = ClientSpec(kind, Delay(0.1, 0.2))
    found = run(arriving, spec, [make_spec()] * 5, faults=[Fault(0.5, 1, "lost")])
    print(found)
"""


def test_records_do_not_depend_on_the_process() -> None:
    outputs = set()
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(_ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", _PRINT_RECORDS],
            env=environment,
            cwd=_ROOT,
            capture_output=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop()) > 10_000


def test_a_call_takes_its_overhead_to_reach_the_engine() -> None:
    chain = [Arrival(0.0, make_chain(3))]
    times_s = []
    for overhead_s in (0.0, 0.25):
        records, _ = run(chain, engines=[make_spec(call_overhead_s=overhead_s)])
        times_s.append(records.jobs[0].finished_s)
        for call in records.calls:
            assert call.first_token_s - call.placed_s > overhead_s
    assert times_s[1] - times_s[0] == pytest.approx(3 * 0.25)


def test_calls_started_together_go_through_the_server_one_after_another() -> None:
    programs = [make_program(*map(make_call, names), wanted=names) for names in ("abc", "def")]
    arriving = [Arrival(5.0 * number, program) for number, program in enumerate(programs)]
    specs = [make_spec(call_overhead_s=0.1, server_call_s=0.04)] * 2
    records, _ = run(arriving, engines=specs)
    waited_s = [call.first_token_s - call.placed_s for call in records.calls]
    first_s = waited_s[0] - 0.1
    expected = [first_s + 0.1 + 0.04 * position for position in range(3)]
    assert waited_s == pytest.approx(2 * expected)


def test_an_engine_may_be_lost_while_a_call_is_on_its_way_there() -> None:
    specs = [make_spec(call_overhead_s=0.5), make_spec()]
    program = make_program(make_call("a", tokens=100))
    records, _ = run([Arrival(0.0, program)], engines=specs, faults=[Fault(0.4, 0, "lost")])
    (call,) = records.calls
    assert (call.engine, call.attempts, call.placed_s) == (1, 2, 0.4)
    assert call.finished_s == pytest.approx(0.4 + 1.1)


def test_a_lost_engine_loses_its_work_and_another_does_it_again() -> None:
    specs = [make_spec()] * 2
    records, _ = run(
        [Arrival(0.0, make_program(make_call("a", tokens=100)))],
        engines=specs,
        faults=[Fault(0.5, 0, "lost")],
    )
    (call,) = records.calls
    assert (call.engine, call.attempts, call.ready_s, call.placed_s) == (1, 2, 0.0, 0.5)
    assert call.finished_s == pytest.approx(0.5 + 1.1)


def test_a_job_waits_for_an_engine_that_joins_again_but_not_for_ever() -> None:
    program = make_program(make_call("a", tokens=100))
    lost = Fault(0.5, 0, "lost")
    records, _ = run([Arrival(0.0, program)], faults=[lost, Fault(9.0, 0, "joins")])
    assert records.jobs[0].failed == ""
    assert records.calls[0].placed_s == 9.0
    records, _ = run([Arrival(0.0, program)], faults=[lost, Fault(100.0, 0, "joins")])
    assert records.jobs[0].failed.startswith("no_engine: ")
    assert records.jobs[0].finished_s == pytest.approx(0.5 + CONFIG.no_engine_s)


def test_a_call_is_not_tried_for_ever() -> None:
    specs = [make_spec()] * 4
    losses = [Fault(0.1 * (n + 1), n, "lost") for n in range(3)]
    records, _ = run([Arrival(0.0, make_program(make_call("a")))], engines=specs, faults=losses)
    assert records.calls == []
    assert records.jobs[0].failed.startswith("engine_lost: ")
    assert "(attempt 3)" in records.jobs[0].failed


def test_a_slow_engine_takes_longer_and_is_not_given_up() -> None:
    program = make_program(make_call("a", tokens=100))
    records, _ = run([Arrival(1.0, program)], faults=[Fault(0.5, 0, "slow", 400.0)])
    assert records.jobs[0].finished_s == pytest.approx(1.0 + 400.0 * 1.1)
    assert records.calls[0].attempts == 1


def test_a_hung_engine_is_given_up_and_its_work_done_elsewhere() -> None:
    program = make_program(make_call("a", tokens=100))
    hangs = Fault(0.5, 0, "slow", float("inf"))
    records, ending = run([Arrival(0.0, program)], engines=[make_spec()] * 2, faults=[hangs])
    assert records.calls[0].engine == 1
    assert records.calls[0].placed_s == pytest.approx(CONFIG.engine_stall_s)
    assert ending.busy_s == pytest.approx((CONFIG.engine_stall_s, 1.1))


def test_a_call_that_another_goes_on_from_is_named_to_its_engine() -> None:
    first = make_call("first", Constant("q", 100))
    program = make_program(first, make_call("second", Constant("q", 100), Output("first")))
    for kind in ("graph", "calls"):
        spec = replace(NO_NETWORK, kind=kind)
        records, _ = run([Arrival(0.0, program)], spec, [make_spec(rules="vllm")])
        assert [r.cached_tokens for r in records.calls] == [0, 120]


def test_a_simulation_ends_when_its_time_is_over() -> None:
    endless = (Arrival(0.1 * number, make_chain(2)) for number in itertools.count())
    records, ending = run(endless, until_s=5.05)
    assert (ending.reason, ending.now_s, ending.num_jobs) == ("time", 5.05, 51)
    assert sorted(record.job for record in records.jobs) == list(range(51))
    unfinished = [r for r in records.jobs if r.failed.startswith("unfinished: ")]
    assert len(unfinished) == ending.num_unfinished > 0


def test_an_interrupt_keeps_what_there_is() -> None:
    def workload() -> Iterator[Arrival]:
        for number in range(10):
            yield Arrival(float(number), make_chain(2))
        raise KeyboardInterrupt

    records, ending = run(workload())
    assert (ending.reason, ending.num_jobs) == ("interrupted", 10)
    assert len(records.jobs) == 10
    assert len([r for r in records.jobs if not r.failed]) == 9


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, ValueError])
def test_cycles_are_looked_for_as_before_when_it_is_over(end: type[BaseException] | None) -> None:
    before, during = gc.get_threshold(), list[Any]()

    def workload() -> Iterator[Arrival]:
        yield Arrival(0.0, make_chain(1))
        during.append(gc.get_threshold())
        if end is not None:
            raise end("stopped")

    with pytest.raises(ValueError, match="stopped") if end is ValueError else nullcontext():
        run(workload())
    assert gc.get_threshold() == before
    assert during[0][0] > before[0]


def test_a_workload_without_programs_ends_at_once() -> None:
    records, ending = run([])
    assert (records, ending) == (Records(), Ending("done", 0.0, 0, 0, (0.0,)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": CoreConfig()}, "tokens_per_char"),
        ({"engines": []}, "no engines"),
        ({"engines": [make_spec(max_requests=0)]}, "engine 0"),
        ({"client": ClientSpec(overhead_s=-1.0)}, "overhead"),
        ({"client": ClientSpec(round_trip=Delay(2.0, 1.0))}, "delay"),
        ({"faults": [Fault(0.0, 7, "lost")]}, "no such engine"),
        ({"faults": [Fault(-1.0, 0, "lost")]}, "no such engine or time"),
        ({"faults": [Fault(1.0, 0, "slow", 0.0)]}, "times as long"),
        ({"until_s": -1.0}, "cannot end"),
    ],
)
def test_what_cannot_be_simulated_is_rejected(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run([], **changes)


@pytest.mark.parametrize("kind", ["graph", "calls"])
def test_memory_does_not_grow_with_the_number_of_jobs(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With four times the jobs at the same load, the peak stays about the same.

    What is remembered up to a bound (texts, prefixes, kinds of calls) has it reached by then.
    """
    monkeypatch.setattr(texts, "_MAX_BYTES", 10_000)
    monkeypatch.setattr(lengths, "_kind", lru_cache(maxsize=64)(lengths._kind.__wrapped__))

    def peak_bytes(num_jobs: int) -> int:
        def workload() -> Iterator[Arrival]:
            for number in range(num_jobs):
                if number % 20 == 0:
                    gc.collect()  # cycles that wait for it are not what is measured
                own = Constant(f"question {number}", 60)
                yield Arrival(
                    0.05 * number, make_program(make_call("a", own), make_call("b", Output("a")))
                )

        config = replace(
            CONFIG,
            prefix_index=replace(CONFIG.prefix_index, max_prefixes_per_engine=64),
            lengths=LengthConfig(max_kinds=128),
        )
        specs = [make_spec(rules="vllm", caches_prefixes=False)] * 2
        simulation = Simulation(
            config, specs, ClientSpec(kind), workload(), 1, _Counting(), create_engine=_Forgetful
        )
        gc.freeze()  # what is there already need not be looked through again and again
        tracemalloc.start()
        try:
            assert simulation.run().num_unfinished == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.unfreeze()

    few, many = peak_bytes(200), peak_bytes(800)
    # What is kept of a call that has ended would be some hundreds of bytes, of each of 600 jobs.
    assert many - few < 600 * 100, (few, many)


class _Counting(RecordSink):
    num_jobs = 0

    def job(self, record: JobRecord) -> None:
        assert not record.failed
        self.num_jobs += 1


class _Forgetful(ConstantEngine):
    """Keeps nothing of what has ended, so that the shell and the core alone are measured."""

    def advance(self, now_s: float) -> list[Any]:
        events = super().advance(now_s)
        self._chains = {attempt: self._chains[attempt] for attempt in self._running}
        return events
