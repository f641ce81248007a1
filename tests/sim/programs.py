"""Programs for tests of the simulator, and a sink that keeps what it gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_backend.core.config import CoreConfig
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim.program import Arrival, Constant, Output, Program, ProgramCall
from parrot_backend.sim.records import CallRecord, JobRecord, RecordSink
from parrot_backend.sim.simulation import Ending, Simulation
from parrot_backend.sim.spec import ClientSpec, Delay, EngineSpec
from tests.sim.constant_engine import ConstantEngine, make_spec

LATENCY = Criteria(CriteriaKind.LATENCY)
CONFIG = CoreConfig(tokens_per_char=1.0)
NO_NETWORK = ClientSpec(round_trip=Delay(0.0, 0.0))


@dataclass
class Records(RecordSink):
    """All records, in the order in which they came."""

    calls: list[CallRecord] = field(default_factory=list)
    jobs: list[JobRecord] = field(default_factory=list)

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)

    def job(self, record: JobRecord) -> None:
        self.jobs.append(record)


def make_call(name: str, *prompt: Constant | Output, tokens: int = 20, **more: Any) -> ProgramCall:
    """Return a call; without a prompt it has one of its own."""
    return ProgramCall(name, prompt or (Constant(name, 100),), tokens, **more)


def make_program(*calls: ProgramCall, wanted: Sequence[str] = (), **more: Any) -> Program:
    """Return a program of which the last output is wanted, or those that are named."""
    names = wanted or (calls[-1].name,)
    criteria = more.pop("criteria", LATENCY)
    return Program("app", calls, tuple((name, criteria) for name in names), **more)


def make_chain(num_calls: int, prompt_tokens: int = 100, output_tokens: int = 20) -> Program:
    """Return calls each of which reads a text of its own and the output before it."""
    calls = []
    for number in range(num_calls):
        prompt: list[Constant | Output] = [Constant(f"p{number}", prompt_tokens)]
        if number:
            prompt.append(Output(f"c{number - 1}"))
        calls.append(make_call(f"c{number}", *prompt, tokens=output_tokens))
    return make_program(*calls)


def run(
    arrivals: Iterable[Arrival],
    client: ClientSpec = NO_NETWORK,
    engines: Sequence[EngineSpec] | None = None,
    config: CoreConfig = CONFIG,
    seed: int = 1,
    **more: Any,
) -> tuple[Records, Ending]:
    """Simulate with engines of constant rates; return records and ending."""
    records = Records()
    specs = [make_spec()] if engines is None else engines
    options = {"create_engine": ConstantEngine, **more}
    ending = Simulation(config, specs, client, arrivals, seed, records, **options).run()
    return records, ending
