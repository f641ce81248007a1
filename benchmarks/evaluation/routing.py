"""Past the paper: recorded traffic and multi-agent workflows, placed by us and as others place.

All engines are alike and have stock vLLM's own scheduler, so that what differs is where calls go
and in which order; the last system has our engine-level scheduler, too. Routers see single calls;
what we do sees programs. There is no round trip: what that brings is shown by the paper's figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from benchmarks.evaluation.experiment import BOUND, Experiment, Measured
from benchmarks.evaluation.measures import (
    computed_tokens,
    decode_ms,
    hit_share,
    mean_bound_s,
    mean_job_s,
    p99_job_s,
)
from benchmarks.evaluation.systems import (
    NO_ROUND_TRIP,
    System,
    calls_client,
    core_config,
    graph_client,
    paper_config,
    serve,
)
from parrot_backend.core.config import CoreConfig, OrderingName, PlacementName
from parrot_backend.sim.latency_models import A100_7B, H200_LLAMA3_8B, PublishedEngine
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.spec import EngineSpec
from parrot_backend.sim.workloads.registry import make_workload

_NUM_ENGINES = 4

_Parameters = Mapping[str, int | float | str]

#: Each with its engines and how much of it: loads at which engines nearly always have work.
_WORKLOADS: dict[str, tuple[PublishedEngine, _Parameters]] = {
    "mooncake": (H200_LLAMA3_8B, {"jobs": 2500, "speed": 1.5}),
    "swe_agent": (A100_7B, {"jobs": 150, "rate_per_s": 1.0}),
    "expert_panel": (A100_7B, {"jobs": 80, "rate_per_s": 0.15}),
    "debate": (A100_7B, {"jobs": 80, "rate_per_s": 0.18}),
    "reflection": (A100_7B, {"jobs": 100, "rate_per_s": 0.3}),
    "running_summary": (A100_7B, {"jobs": 200, "rate_per_s": 1.0}),
    "product_insights": (A100_7B, {"jobs": 80, "rate_per_s": 0.25}),
    "trading": (A100_7B, {"jobs": 40, "rate_per_s": 0.1}),
}

#: Placement and order of systems that see single calls.
_ROUTERS: dict[str, tuple[PlacementName, OrderingName]] = {
    "least_loaded": ("least_loaded", "fcfs"),
    "session_affinity": ("session_affinity", "fcfs"),
    "cache_aware": ("cache_aware", "fcfs"),
    "kv_exact": ("kv_exact", "fcfs"),
    "attained_service": ("least_loaded", "attained_service"),
}

_OURS = ("paper", "cost", "cost and plug-in")


def _engine(published: PublishedEngine) -> EngineSpec:
    return EngineSpec(
        published.latency,
        num_blocks=published.kv_tokens // 16,
        rules="vllm",
        latency_capacity_tokens=None,
    )


def _system(name: str, published: PublishedEngine) -> System:
    engine = _engine(published)
    if name in _ROUTERS:
        core, client = core_config(*_ROUTERS[name]), calls_client(NO_ROUND_TRIP)
    else:
        core, client = _own_config(name), graph_client(NO_ROUND_TRIP)
    if name == "cost and plug-in":
        engine = replace(engine, rules="parrot", latency_capacity_tokens=6144)
    if name == "paper":
        engine = replace(engine, latency_capacity_tokens=6144)
    return System((engine,) * _NUM_ENGINES, client, core)


def _own_config(name: str) -> CoreConfig:
    return paper_config() if name == "paper" else core_config()


def jobs_of(workload: str, seed: int) -> Iterator[Arrival]:
    """Return the arrivals of a workload as they are measured here."""
    parameters = dict(_WORKLOADS[workload][1])
    return islice(make_workload(workload, seed, parameters), int(parameters["jobs"]))


def engine_of(workload: str) -> EngineSpec:
    """Return the engine that a workload is measured on."""
    return _engine(_WORKLOADS[workload][0])


def routed(x: str, system: str, seed: int) -> Measured:
    """Measure a workload on a system."""
    if system == BOUND:
        return {
            "mean job time (s)": mean_bound_s(jobs_of(x, seed), _system("cost", _WORKLOADS[x][0]))
        }
    outcome = serve(_system(system, _WORKLOADS[x][0]), jobs_of(x, seed), seed)
    done = [job for job in outcome.jobs if not job.failed]
    return {
        "mean job time (s)": mean_job_s(done),
        "P99 job time (s)": p99_job_s(done),
        "prompt tokens computed (1000)": computed_tokens(outcome.calls),
        "prompt tokens found in caches (%)": hit_share(outcome.calls),
        "time between tokens (ms)": decode_ms(outcome.calls),
        "failed jobs": float(len(outcome.jobs) - len(done)),
    }


EXPERIMENTS = (
    Experiment(
        "routing",
        "Agents and recorded traffic on four engines, against other routers",
        "workload",
        (*_ROUTERS, *_OURS, BOUND),
        tuple(_WORKLOADS),
        routed,
        num_seeds=2,
        is_relative=True,
        remark="Four A100 with a 7B model, but for Mooncake: four H200 with an 8B model. None of "
        "these engines was measured by us. `paper` bounds latency-sensitive work to 6,144 tokens "
        "an engine, which these loads exceed by far.",
    ),
)
