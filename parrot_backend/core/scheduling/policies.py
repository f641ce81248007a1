"""Placement policies by name, each with what it remembers."""

from __future__ import annotations

from collections.abc import Callable

from parrot_backend.core.config import PlacementName, SchedulerConfig
from parrot_backend.core.scheduling.baselines import FcfsPlacement, LeastLoadedPlacement
from parrot_backend.core.scheduling.cache_aware import CacheAwarePlacement, PromptTrees
from parrot_backend.core.scheduling.cost import CostPlacement
from parrot_backend.core.scheduling.kv_exact import ActivePrompts, KvExactPlacement
from parrot_backend.core.scheduling.memory import PlacementMemory
from parrot_backend.core.scheduling.paper import PaperPlacement
from parrot_backend.core.scheduling.placement import PlacementPolicy
from parrot_backend.core.scheduling.power_of_two import PowerOfTwoPlacement
from parrot_backend.core.scheduling.round_robin import RoundRobinPlacement, Turns
from parrot_backend.core.scheduling.session_affinity import SessionAffinityPlacement, SessionHomes

#: A policy, and what it remembers.
PolicyWithMemory = tuple[PlacementPolicy, PlacementMemory]


def make_policy(config: SchedulerConfig) -> PolicyWithMemory:
    """Return the configured placement policy, and its memory, to be told of all placements."""
    return PLACEMENTS[config.placement](config)


def _cache_aware(config: SchedulerConfig) -> PolicyWithMemory:
    own = config.baselines
    trees = PromptTrees(own.max_tree_tokens, own.max_tree_entries)
    return CacheAwarePlacement(own, trees), trees


def _session_affinity(config: SchedulerConfig) -> PolicyWithMemory:
    homes = SessionHomes(config.baselines.max_sessions)
    return SessionAffinityPlacement(homes), homes


def _round_robin(_config: SchedulerConfig) -> PolicyWithMemory:
    turns = Turns()
    return RoundRobinPlacement(turns), turns


def _kv_exact(config: SchedulerConfig) -> PolicyWithMemory:
    active = ActivePrompts()
    return KvExactPlacement(config.baselines, active), active


PLACEMENTS: dict[PlacementName, Callable[[SchedulerConfig], PolicyWithMemory]] = {
    "paper": lambda _: (PaperPlacement(), PlacementMemory()),
    "cost": lambda config: (CostPlacement(config.cost), PlacementMemory()),
    "fcfs": lambda _: (FcfsPlacement(), PlacementMemory()),
    "least_loaded": lambda _: (LeastLoadedPlacement(), PlacementMemory()),
    "round_robin": _round_robin,
    "power_of_two": lambda config: (PowerOfTwoPlacement(config.baselines.seed), PlacementMemory()),
    "session_affinity": _session_affinity,
    "cache_aware": _cache_aware,
    "kv_exact": _kv_exact,
}
