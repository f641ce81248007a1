"""Figure 18: multi-agent programming on one A100 with LLaMA 13B."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.evaluation.experiment import BOUND, Experiment, Measured
from benchmarks.evaluation.hardware import PARROT_A100_13B, VLLM_A100_13B
from benchmarks.evaluation.measures import computed_tokens, mean_bound_s, mean_job_s
from benchmarks.evaluation.systems import (
    System,
    calls_client,
    core_config,
    graph_client,
    paper_config,
    serve,
    unshared,
)
from parrot_backend.sim.workloads.metagpt import metagpt_jobs

_NUM_BLOCKS = 4000

#: VLLM_CAPACITY of the baseline that is tuned for latency.
_LATENCY_CAPACITY_TOKENS = 7096

# Ten rounds on ten lengths of prompts: the artifact's kernel against the paged one at 16 files is
# 1.16 there, where batches are smaller than in figure 16 and beginnings shorter.
_PAGED_REPEATED_READ = 0.25

_PARROT = replace(
    PARROT_A100_13B,
    num_blocks=_NUM_BLOCKS,
    max_step_tokens=8000,
    caches_prefixes=True,
    repeated_read=0.0,
    latency_capacity_tokens=None,
)
_VLLM = replace(VLLM_A100_13B, num_blocks=_NUM_BLOCKS)
_ROUTER = unshared(core_config("least_loaded", "fcfs"))

_SYSTEMS = {
    "latency": System(
        (replace(_VLLM, capacity_tokens=_LATENCY_CAPACITY_TOKENS),), calls_client(), _ROUTER
    ),
    "throughput": System((replace(_VLLM, capacity_tokens=10**9),), calls_client(), _ROUTER),
    "unshared": System(
        (replace(_PARROT, caches_prefixes=False, repeated_read=1.0),),
        graph_client(),
        unshared(paper_config()),
    ),
    "paged": System(
        (replace(_PARROT, repeated_read=_PAGED_REPEATED_READ),),
        graph_client(),
        paper_config(),
    ),
    "parrot": System((_PARROT,), graph_client(), paper_config()),
    "cost": System((_PARROT,), graph_client(), core_config()),
}


def by_files(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 18."""
    jobs = metagpt_jobs([0.0], int(x), review_rounds=4, as_replayed=True)
    if system == BOUND:
        return {"job time (s)": mean_bound_s(jobs, _SYSTEMS["parrot"])}
    outcome = serve(_SYSTEMS[system], jobs, seed)
    return {
        "job time (s)": mean_job_s(outcome.jobs),
        "prompt tokens computed (1000)": computed_tokens(outcome.calls),
    }


EXPERIMENTS = (
    Experiment(
        "18",
        "Multi-agent programming",
        "files",
        ("latency", "throughput", "unshared", "paged", "parrot", "cost", BOUND),
        ("4", "8", "12", "16"),
        by_files,
        skips=(("12", "unshared", "out of memory"), ("16", "unshared", "out of memory")),
        remark="Predicted from the fit of figure 11a, but for what repeated reads cost (paged).",
    ),
)
