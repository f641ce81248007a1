"""Figures 15, 16 and 17: users who share long prompts, on LLaMA 7B."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from benchmarks.evaluation.experiment import BOUND, Experiment, Measured
from benchmarks.evaluation.hardware import (
    PAGED_REPEATED_READ,
    PARROT_A100_7B,
    PARROT_A6000_7B,
)
from benchmarks.evaluation.measures import mean_job_s, normalised_bound_ms, normalised_ms
from benchmarks.evaluation.systems import (
    NO_ROUND_TRIP,
    System,
    calls_client,
    core_config,
    graph_client,
    paper_config,
    serve,
    unshared,
)
from parrot_backend.core.config import CoreConfig
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.records import JobRecord
from parrot_backend.sim.spec import EngineSpec
from parrot_backend.sim.workloads.arrivals import ArrivalProcess, first, seeded
from parrot_backend.sim.workloads.shared_prompts import copilot_jobs, four_gpts_jobs

_NUM_REQUESTS = 64
_NUM_GPTS_REQUESTS = 400
_NUM_ENGINES = 4

# The artifact drives the engine itself for figures 15 and 16: no coordinator, no network.
_ENGINE = replace(PARROT_A100_7B, rules="vllm", capacity_tokens=10**9, latency_capacity_tokens=None)
_ENGINES: dict[str, EngineSpec] = {
    "unshared": replace(_ENGINE, caches_prefixes=False, repeated_read=1.0),
    "paged": replace(_ENGINE, repeated_read=PAGED_REPEATED_READ),
    "parrot": _ENGINE,
}


def _gpts(core: CoreConfig, repeated_read: float = 0.0) -> System:
    engine = replace(PARROT_A6000_7B, repeated_read=repeated_read)
    return System((engine,) * _NUM_ENGINES, graph_client(NO_ROUND_TRIP), core)


_GPTS = {
    "vllm": System(
        (
            replace(
                PARROT_A6000_7B,
                rules="vllm",
                caches_prefixes=False,
                repeated_read=1.0,
                max_requests=256,
            ),
        )
        * _NUM_ENGINES,
        calls_client(NO_ROUND_TRIP),
        unshared(core_config("least_loaded", "fcfs")),
    ),
    # Where prompts are mixed on an engine, Parrot's kernel finds no beginning that all have.
    "no affinity": _gpts(core_config("least_loaded", "fcfs"), PAGED_REPEATED_READ),
    "paged": _gpts(paper_config(), PAGED_REPEATED_READ),
    "parrot": _gpts(paper_config()),
    "cost": _gpts(core_config()),
}


def _in_batches(engine: EngineSpec, size: int, output_tokens: int | None) -> list[JobRecord]:
    """Serve the requests in batches, one after the other, and return all of them."""
    system = System((engine,), graph_client(NO_ROUND_TRIP), core_config("fcfs", "fcfs"))
    arrivals: list[Arrival] = list(first(copilot_jobs([0.0] * _NUM_REQUESTS, output_tokens), 64))
    jobs: list[JobRecord] = []
    for begin in range(0, _NUM_REQUESTS, size):
        jobs += serve(system, arrivals[begin : begin + size], seed=0).jobs
    return jobs


def copilot_by_batch(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 15."""
    return {"latency (s)": mean_job_s(_in_batches(_ENGINES[system], int(x), None))}


def copilot_32_by_output(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 16, at batches of 32."""
    return {"time per token (ms)": normalised_ms(_in_batches(_ENGINES[system], 32, int(x)))}


def copilot_64_by_output(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 16, at batches of 64."""
    return {"time per token (ms)": normalised_ms(_in_batches(_ENGINES[system], 64, int(x)))}


def gpts_by_rate(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 17."""
    times_s = ArrivalProcess("poisson", float(x)).times_s(seeded(seed, "arrivals"))
    jobs = islice(four_gpts_jobs(times_s, seeded(seed, "gpts")), _NUM_GPTS_REQUESTS)
    if system == BOUND:
        return {"time per token (ms)": normalised_bound_ms(jobs, _GPTS["parrot"])}
    return {"time per token (ms)": normalised_ms(serve(_GPTS[system], jobs, seed).jobs)}


EXPERIMENTS = (
    Experiment(
        "15",
        "Search assistant with a long common prompt, by batch size",
        "batch",
        ("unshared", "paged", "parrot"),
        ("8", "16", "32", "64"),
        copilot_by_batch,
        skips=(("32", "unshared", "out of memory"), ("64", "unshared", "out of memory")),
        remark="Predicted from figure 16. One engine without a coordinator: what Parrot's kernel "
        "brings, so placement plays no part.",
    ),
    Experiment(
        "16a",
        "Search assistant, batch 32, by length of outputs",
        "output tokens",
        ("paged", "parrot"),
        ("200", "400", "600", "800"),
        copilot_32_by_output,
        remark="Fitted on the ends of 16a and 16b.",
    ),
    Experiment(
        "16b",
        "Search assistant, batch 64, by length of outputs",
        "output tokens",
        ("paged", "parrot"),
        ("100", "200", "300", "400", "480"),
        copilot_64_by_output,
        remark="Fitted on the ends of 16a and 16b.",
    ),
    Experiment(
        "17",
        "Four GPTs on four engines",
        "requests per second",
        ("vllm", "no affinity", "paged", "parrot", "cost", BOUND),
        ("0.5", "1", "2", "3", "4", "6", "8", "16"),
        gpts_by_rate,
        num_seeds=3,
        remark="Fitted on Parrot at 1 and 4 requests a second; how many requests the artifact lets "
        "run at once is not known, so what happens beyond 8 a second is not either.",
    ),
)
