"""Settings of the core: frozen records with defaults, units and sources.

Loading them from files, flags or the environment is the server's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.core.scheduling.baseline_config import BaselineConfig
from parrot_backend.core.step_time import StepTimeModel

PlacementName = Literal[
    "paper",
    "cost",
    "fcfs",
    "least_loaded",
    "round_robin",
    "power_of_two",
    "session_affinity",
    "cache_aware",
    "kv_exact",
]
OrderingName = Literal[
    "application",
    "urgency",
    "critical_path",
    "shortest_job",
    "topological",
    "fcfs",
    "attained_service",
]
AdmissionName = Literal["tokens", "working_set"]

#: An A100 80 GB with a model of 13 billion parameters in 16 bits, as DistServe's authors fitted the
#: vLLM of 2023 (simdistserve, profiler-a100-80g.vllm.json, OPT-13B, batches below 95).
_A100_13B = StepTimeModel(
    base_s=0.02348,
    per_prefill_token_s=1.405e-4,
    per_decode_s=6.07e-5,
    per_context_token_s=5.93e-7,
    per_prefill_pair_s=1.616e-8,
    num_samples=0,
    error=1.0,
)


@dataclass(frozen=True, slots=True)
class CostConfig:
    """Settings of the placement ``cost`` (decision 0019).

    Attributes:
        step_time: How long an engine's steps take until it says so itself. Only what these times
            are to each other matters then.
        bulk_weight: What a second of throughput-preferred work counts, where one of work that
            somebody waits for counts 1.
        eviction_weight: What a token counts that is evicted and would have been read again, where
            its prefill counts 1; 0 is off.
        compute_weight: What a second of prefill counts for those who come later, beside what it
            takes from those who are there.
        queue_weight: What a second of an engine counts for each request that waits, divided by the
            number of engines; 0 is off.
        miss_s: What it counts to miss a target: that much, and more the more it is missed by.
        latency_tpot_s: Time per token that latency-sensitive work keeps beside other work: of that,
            no more is taken. 40 ms is what the paper's capacity was chosen for (section 5.4). Until
            an engine says how long its steps take, its latency capacity stands for it. None: no
            bound but the targets that were asked for.
        bounds_latency: Whether latency-sensitive work keeps that time among itself, too; else only
            where it has targets. With it, each gets its tokens evenly, and the last ones late.
        splits_groups: Whether a task group may be spread over several engines; else it goes to one
            that has room for all of it, if there is one.
        max_together: How many requests are placed together at most; over more than 16 engines
            fewer, but 64.
        shortlist: Beside those that hold some of the prompt, so many engines are looked at, by
            load. More cost more time.
    """

    step_time: StepTimeModel = _A100_13B
    bulk_weight: float = 0.1
    eviction_weight: float = 1.0
    compute_weight: float = 0.2
    queue_weight: float = 1.0
    miss_s: float = 10.0
    latency_tpot_s: float | None = 0.04
    bounds_latency: bool = False
    splits_groups: bool = True
    max_together: int = 256
    shortlist: int = 8


_OWN_ADMISSION: dict[PlacementName, AdmissionName] = {"cost": "working_set"}


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Settings of ordering and placement.

    Attributes:
        placement: Which policy picks engines (decision 0019).
        ordering: Which order ready requests are served in; None takes the placement's own
            (``urgency`` for ``paper`` and ``cost``, ``application`` for ``least_loaded``, else
            ``fcfs``).
        max_wait_s: A request that waited longer goes before all others but those of earlier runs,
            so nothing starves.
        max_run_s: For so long after a run began, its requests go before older ones of later runs
            (``age_watch.py``); some times what a long run takes.
        fair: Whether tenants that wait for service of the same class get it in equal shares.
        tenant_weights: The shares of tenants that are to get other ones; 1 is anybody's.
        max_backfill: How many blocked requests may be passed over to place a later one.
        max_shared: How many queued requests that share a prefix are placed together at most.
        cost: Settings of the placement ``cost``.
        admission: What counts as room. ``tokens``: each running request's tokens but for what the
            engine held when it came. ``working_set``: what runs together holds now, prefixes
            counted once and for as long as somebody uses them. None: that for ``cost``, else
            ``tokens``.
        baselines: Settings of the baseline policies.
    """

    placement: PlacementName = "cost"
    ordering: OrderingName | None = None
    max_wait_s: float = 30.0
    max_run_s: float = 3600.0
    fair: bool = True
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    max_backfill: int = 8
    max_shared: int = 32
    cost: CostConfig = field(default_factory=CostConfig)
    admission: AdmissionName | None = None

    @property
    def counts_working_set(self) -> bool:
        """Whether engines are filled by what runs there holds together."""
        return (self.admission or _OWN_ADMISSION.get(self.placement)) == "working_set"

    baselines: BaselineConfig = field(default_factory=BaselineConfig)


@dataclass(frozen=True, slots=True)
class EarlyFillConfig:
    """Settings of early fill.

    Attributes:
        is_on: Whether prompts are filled ahead of need.
        min_tokens: Shorter prompts are not worth it; about two KV blocks.
        max_per_engine: Fills that one engine has at once.
        max_backlog: Prompts that wait for a fill; the oldest are dropped beyond this.
    """

    is_on: bool = True
    min_tokens: int = 64
    max_per_engine: int = 2
    max_backlog: int = 256


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Settings of discovery.

    Attributes:
        is_on: Whether structure is looked for in the texts of calls that declare none.
        learns: Whether runs are compared with earlier ones of their application.
        max_chars: How much text of all sessions is remembered; about 20 bytes each at most.
    """

    is_on: bool = True
    learns: bool = True
    max_chars: int = 2**24


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """Settings of the plan optimiser.

    Attributes:
        prunes: Calls that nobody can want are not run.
        merges: Equal deterministic calls of a tenant run once while one of them is on its way.
        result_cache_bytes: Results of such calls that are kept for later ones; 0 for none.
    """

    prunes: bool = True
    merges: bool = True
    result_cache_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LengthConfig:
    """Settings of what is learnt of outputs' lengths.

    Attributes:
        is_on: Whether lengths are learnt, and memory reserved accordingly.
        min_outputs: Of fewer outputs of a kind the longest ones say little.
        max_kinds: Kinds of calls that are remembered.
        max_bytes: Memory that they may take.
    """

    is_on: bool = True
    min_outputs: int = 8
    max_kinds: int = 65_536
    max_bytes: int = 2**26


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """Settings of the coordinator.

    Attributes:
        retain_prefixes: Whether engines keep prefixes that requests to come will read.
        splice: Whether engines that can go on by themselves with the next output of a call.
        max_nodes_per_session: Nodes one session may hold, those of instances included; and
            instances of bodies that it may make.
        max_unfinished_calls: Requests the whole server holds before it says ``saturated``.
        max_attempts: Tries of one request, counting the first.
        session_ttl_s: An idle session is forgotten after this.
        closed_session_ttl_s: The same for a session that takes nothing more: its values are only
            kept for whoever asks again.
        engine_stall_s: An engine with work that says nothing for so long is given up.
        no_engine_s: How long a request waits when no engine can serve it at all; longer than an
            engine takes to start again.
        retry_delay_s: Wait before a failed request is tried again where it failed; doubled each
            time. Another engine is tried at once.
        tokens_per_char: First estimate of prompt lengths; learnt from finished requests.
    """

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    prefix_index: PrefixIndexConfig = field(default_factory=PrefixIndexConfig)
    early_fill: EarlyFillConfig = field(default_factory=EarlyFillConfig)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    lengths: LengthConfig = field(default_factory=LengthConfig)
    retain_prefixes: bool = True
    splice: bool = False
    max_nodes_per_session: int = 10_000
    max_unfinished_calls: int = 50_000
    max_attempts: int = 3
    session_ttl_s: float = 600.0
    closed_session_ttl_s: float = 60.0
    engine_stall_s: float = 120.0
    no_engine_s: float = 30.0
    retry_delay_s: float = 0.0
    tokens_per_char: float = 0.25
