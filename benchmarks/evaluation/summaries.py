"""Figures 11, 12 and 14: summaries of long documents on one A100 with LLaMA 13B."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from benchmarks.evaluation.experiment import BOUND, Experiment, Measured
from benchmarks.evaluation.hardware import (
    FASTCHAT_OVERHEAD_S,
    HF_A100_13B,
    HF_OVERHEAD_S,
    PARROT_A100_13B,
    VLLM_A100_13B,
)
from benchmarks.evaluation.measures import mean_bound_s, mean_job_s
from benchmarks.evaluation.systems import (
    NO_ROUND_TRIP,
    Outcome,
    System,
    calls_client,
    core_config,
    graph_client,
    paper_config,
    serve,
    unaged,
    unshared,
)
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.records import JobRecord
from parrot_backend.sim.spec import EngineSpec
from parrot_backend.sim.workloads.arrivals import ArrivalProcess, merged, seeded
from parrot_backend.sim.workloads.summaries import (
    articles,
    background_jobs,
    chain_jobs,
    map_reduce_jobs,
)

#: Tokens that run together on an engine that serves for latency, in all systems (artifact).
_CAPACITY_TOKENS = 4096
_MAP_REDUCE_CAPACITY_TOKENS = 45_000

# Upstream lets at most four latency-sensitive requests run at once on an engine.
_CHAIN_ENGINE = replace(
    PARROT_A100_13B,
    capacity_tokens=_CAPACITY_TOKENS,
    latency_capacity_tokens=_CAPACITY_TOKENS,
    max_requests=4,
)
_MAP_REDUCE_ENGINE = replace(
    PARROT_A100_13B,
    capacity_tokens=_MAP_REDUCE_CAPACITY_TOKENS,
    latency_capacity_tokens=_CAPACITY_TOKENS,
    max_step_tokens=8000,
)
# vLLM bounds itself (VLLM_CAPACITY): what does not fit waits in its own queue.
_VLLM = replace(VLLM_A100_13B, num_blocks=_CAPACITY_TOKENS // 16, capacity_tokens=10**9)
_VLLM_UNBOUNDED = replace(VLLM_A100_13B, capacity_tokens=10**9)
# Ours decides by itself what runs together, up to the engine's memory.
_WHOLE = replace(PARROT_A100_13B, max_step_tokens=8000)

JOB_TIME = "job time (s)"


def _systems(parrot: EngineSpec) -> dict[str, System]:
    paper, cost = paper_config(), core_config()
    router = unshared(core_config("least_loaded", "fcfs"))
    fastchat = calls_client(NO_ROUND_TRIP, FASTCHAT_OVERHEAD_S)
    graphs = graph_client(NO_ROUND_TRIP)
    return {
        "hf": System((HF_A100_13B,), calls_client(NO_ROUND_TRIP, HF_OVERHEAD_S), router),
        "vllm": System((_VLLM,), fastchat, router),
        "vllm, unbounded": System((_VLLM_UNBOUNDED,), fastchat, router),
        "parrot": System((parrot,), graphs, paper),
        "cost": System((_WHOLE,), graphs, cost),
    }


_CHAIN = _systems(_CHAIN_ENGINE)
# With upstream's bound, what is served at once is not the policy's to decide.
_FOUR = "cost, four at once"
_CHAIN[_FOUR] = replace(_CHAIN["cost"], engines=(_CHAIN_ENGINE,), core=unaged(core_config()))
_MAP_REDUCE = _systems(_MAP_REDUCE_ENGINE)


def _chain(system: str, chunk: int, output_tokens: int, seed: int) -> Measured:
    documents = articles("arxiv-sampled", chunk)
    jobs = [chain_jobs([0.0], [doc], output_tokens, str(n)) for n, doc in enumerate(documents)]
    if system == BOUND:
        return {JOB_TIME: mean_bound_s(chain.from_iterable(jobs), _CHAIN["parrot"])}
    return _mean_of(jobs, _CHAIN[system], seed)


def _map_reduce(system: str, chunk: int, output_tokens: int, seed: int) -> Measured:
    documents = articles("arxiv-sampled", chunk)
    jobs = [map_reduce_jobs([0.0], [doc], output_tokens, str(n)) for n, doc in enumerate(documents)]
    if system == BOUND:
        return {JOB_TIME: mean_bound_s(chain.from_iterable(jobs), _MAP_REDUCE["parrot"])}
    return _mean_of(jobs, _MAP_REDUCE[system], seed)


def _mean_of(jobs: Iterable[Iterable[Arrival]], system: System, seed: int) -> Measured:
    """Return the mean time of jobs that are served one after the other."""
    times = [mean_job_s(serve(system, workload, seed).jobs) for workload in jobs]
    return {JOB_TIME: sum(times) / len(times)}


def _is_chain_done(outcome: Outcome) -> bool:
    return outcome.jobs[-1].app == "chain_summary"


def beside_background(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 12a."""
    times, beside = list[float](), list[JobRecord]()
    for number, document in enumerate(articles("arxiv-sampled", 1024)):
        run = f"{seed}/{number}"
        workload: Iterable[Arrival] = chain_jobs([0.0], [document], 50, run)
        if float(x):
            arrivals = ArrivalProcess("poisson", float(x)).times_s(seeded(seed, run))
            workload = merged(workload, background_jobs(arrivals, run=run))
        outcome = serve(_CHAIN[system], workload, seed, enough=_is_chain_done)
        times.append(mean_job_s(outcome.jobs_of("chain_summary")))
        beside += outcome.jobs_of("background")
    measured = {JOB_TIME: sum(times) / len(times)}
    if beside:
        measured["time of the single requests that ended meanwhile (s)"] = mean_job_s(beside)
        measured["single requests answered per second (1/s)"] = len(beside) / sum(times)
    return measured


def many_chains(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 12b."""
    documents = articles("arxiv-sampled-1", 2048)[: int(x)]
    jobs = chain_jobs([0.0] * int(x), documents, 50)
    if system == BOUND:
        return {JOB_TIME: mean_bound_s(jobs, _CHAIN["parrot"])}
    outcome = serve(_CHAIN[system], jobs, seed)
    return {JOB_TIME: mean_job_s(outcome.jobs)}


def chain_by_output(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 11a."""
    return _chain(system, 1024, int(x), seed)


def chain_by_chunk(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 11b."""
    return _chain(system, int(x), 50, seed)


def map_reduce_by_output(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 14a."""
    return _map_reduce(system, 1024, int(x), seed)


def map_reduce_by_chunk(x: str, system: str, seed: int) -> Measured:
    """Measure a point of figure 14b."""
    return _map_reduce(system, int(x), 50, seed)


_REFERENCE = "Chunks are those that the artifact really made; see sim/data/SOURCES.md."

EXPERIMENTS = (
    Experiment(
        "11a",
        "Chain summary, one at a time, by length of outputs",
        "output tokens",
        ("hf", "vllm", "parrot", "cost", BOUND),
        ("25", "50", "75", "100"),
        chain_by_output,
        remark=f"Fitted: slopes and intercepts of Parrot and vLLM. {_REFERENCE}",
    ),
    Experiment(
        "11b",
        "Chain summary, one at a time, by size of chunks",
        "chunk size",
        ("hf", "vllm", "parrot", "cost", BOUND),
        ("512", "1024", "1536", "2048"),
        chain_by_chunk,
        remark=f"Predicted from the fit of 11a. {_REFERENCE}",
    ),
    Experiment(
        "12a",
        "Chain summary beside single requests",
        "background requests per second",
        ("vllm", "parrot", "cost", _FOUR),
        ("0", "1", "2", "3", "3.5"),
        beside_background,
        num_seeds=3,
        remark="Predicted. At 3.5 a second vLLM is near its limit, where little decides much. "
        "Upstream runs at most four latency-sensitive requests at once, and so answers two single "
        "requests a second, however many come: from three a second on its queue grows for as long "
        "as the chain lasts, and what they wait is what the chain gains. `cost` runs what the "
        "memory holds and answers all that come, in two seconds. On an engine with upstream's "
        "bound, and where nothing ages, it serves as `parrot` does: who wants the chain first at "
        "any price bounds the engine.",
    ),
    Experiment(
        "12b",
        "Chain summaries at once",
        "applications",
        ("vllm", "parrot", "cost", BOUND),
        ("10", "15", "20", "25"),
        many_chains,
        remark="Predicted.",
    ),
    Experiment(
        "14a",
        "Map-reduce summary, by length of outputs",
        "output tokens",
        ("vllm", "vllm, unbounded", "parrot", "cost", BOUND),
        ("25", "50", "75", "100"),
        map_reduce_by_output,
        remark="Predicted. The paper compares with the bounded vLLM only.",
    ),
    Experiment(
        "14b",
        "Map-reduce summary, by size of chunks",
        "chunk size",
        ("vllm", "vllm, unbounded", "parrot", "cost", BOUND),
        ("512", "1024", "1536", "2048"),
        map_reduce_by_chunk,
        remark="Predicted.",
    ),
)
