"""Settings of the core: frozen records with defaults, units and sources.

Loading them from files, flags or the environment is the server's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from parrot_backend.core.prefix import PrefixIndexConfig

PlacementName = Literal["paper", "fcfs", "least_loaded"]
OrderingName = Literal[
    "application",
    "urgency",
    "critical_path",
    "shortest_job",
    "topological",
    "fcfs",
    "attained_service",
]


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Settings of ordering and placement.

    Attributes:
        placement: Which policy picks engines.
        ordering: Which order ready requests are served in; None takes the placement's own
            (``urgency`` for ``paper``, ``fcfs`` for ``fcfs``, ``shortest_job`` for ``cost``, else
            ``application``).
        max_wait_s: A request that waited longer goes before all others, so nothing starves.
        fair: Whether tenants that wait for service of the same class get it in equal shares.
        tenant_weights: The shares of tenants that are to get other ones; 1 is anybody's.
        max_backfill: How many blocked requests may be passed over to place a later one.
        max_shared: How many queued requests that share a prefix are placed together at most.
    """

    placement: PlacementName = "paper"
    ordering: OrderingName | None = None
    max_wait_s: float = 30.0
    fair: bool = True
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    max_backfill: int = 8
    max_shared: int = 32


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
