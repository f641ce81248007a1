"""What each part of ours brings: all but one of them, on three workloads."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.evaluation.experiment import Experiment, Measured
from benchmarks.evaluation.measures import computed_tokens, mean_job_s, p99_job_s
from benchmarks.evaluation.routing import engine_of, jobs_of
from benchmarks.evaluation.systems import (
    NO_ROUND_TRIP,
    PAPER_ROUND_TRIP,
    System,
    calls_client,
    core_config,
    graph_client,
    serve,
)
from parrot_backend.core.config import CoreConfig, EarlyFillConfig, LengthConfig, OptimiserConfig

_NUM_ENGINES = 4


def _variants() -> dict[str, CoreConfig]:
    full = core_config()
    scheduler = full.scheduler
    return {
        "all": full,
        "placement least_loaded": replace(
            full, scheduler=replace(scheduler, placement="least_loaded", ordering="shortest_job")
        ),
        "groups not split": replace(
            full,
            scheduler=replace(scheduler, cost=replace(scheduler.cost, splits_groups=False)),
        ),
        "order urgency": replace(full, scheduler=replace(scheduler, ordering="urgency")),
        "order critical_path": replace(
            full, scheduler=replace(scheduler, ordering="critical_path")
        ),
        "order fcfs": replace(full, scheduler=replace(scheduler, ordering="fcfs")),
        "room by tokens": replace(full, scheduler=replace(scheduler, admission="tokens")),
        "lengths not learnt": replace(full, lengths=LengthConfig(is_on=False)),
        "prefixes not pinned": replace(full, retain_prefixes=False),
        "no optimiser": replace(full, optimiser=OptimiserConfig(prunes=False, merges=False)),
        "with early fill": replace(full, early_fill=EarlyFillConfig(is_on=True)),
    }


_VARIANTS = _variants()
_NO_GRAPH = "call by call, 250 ms"
_WITH_GRAPH = "all, 250 ms"


def without(x: str, system: str, seed: int) -> Measured:
    """Measure a workload with all but one part."""
    engine = replace(engine_of(x), rules="parrot", latency_capacity_tokens=6144)
    client = {
        _NO_GRAPH: calls_client(PAPER_ROUND_TRIP),
        _WITH_GRAPH: graph_client(PAPER_ROUND_TRIP),
    }.get(system, graph_client(NO_ROUND_TRIP))
    core = _VARIANTS.get(system, _VARIANTS["all"])
    outcome = serve(System((engine,) * _NUM_ENGINES, client, core), jobs_of(x, seed), seed)
    done = [job for job in outcome.jobs if not job.failed]
    return {
        "mean job time (s)": mean_job_s(done),
        "P99 job time (s)": p99_job_s(done),
        "prompt tokens computed (1000)": computed_tokens(outcome.calls),
    }


EXPERIMENTS = (
    Experiment(
        "ablation",
        "Ours without one part at a time",
        "workload",
        (*_VARIANTS, _WITH_GRAPH, _NO_GRAPH),
        ("swe_agent", "debate", "trading"),
        without,
        is_relative=True,
        remark="Engines and loads as above, with our engine-level scheduler. Outputs end where "
        "they are told to, so learning their lengths changes accounts of memory only.",
    ),
)
