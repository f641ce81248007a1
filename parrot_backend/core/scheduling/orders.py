"""The orders in which ready requests are served. Each is a function of the request alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from parrot_backend.core.config import OrderingName, SchedulerConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.nodes import Request

OrderKey = tuple[float, ...]
Ordering = Callable[[Request], OrderKey]

#: Service that a call may inherit and still be of the first level; the next ones are twice as wide.
FIRST_LEVEL_TOKENS = 256


def application_order(request: Request) -> OrderKey:
    """Class first, then the earliest deadline, the longest path still to go, and arrival."""
    objective = request.objective
    deadline_s = math.inf if objective.deadline_s is None else objective.deadline_s
    return (objective.objective_class, deadline_s, -request.remaining, request.order)


def urgency_order(request: Request) -> OrderKey:
    """What somebody waits for, then what nobody does; of each the earliest deadline first.

    Among equals in topological order, as in the paper: who began first ends first, so most
    applications end earlier than they would if all went on side by side.
    """
    objective = request.objective
    deadline_s = math.inf if objective.deadline_s is None else objective.deadline_s
    return (_is_bulk(request), deadline_s, *topological_order(request))


def critical_path_order(request: Request) -> OrderKey:
    """As by urgency, but within a job the longest path to come first, in tokens.

    A deadline counts only where the time left is scarce; there the least slack goes first.
    """
    return (
        _is_bulk(request),
        _scarce_until_s(request),
        request.session_order,
        -request.path_tokens,
        request.order,
    )


def shortest_job_order(request: Request) -> OrderKey:
    """As by the critical path, but the job first that has the least work still to come.

    Jobs of about the same size go in order of arrival, so that they do not all go on side by side.
    """
    return (
        _is_bulk(request),
        _scarce_until_s(request),
        request.job_level,
        request.session_order,
        -request.path_tokens,
        request.order,
    )


def topological_order(request: Request) -> OrderKey:
    """Applications in order of arrival, each in topological order (paper, Algorithm 1, line 1)."""
    return (request.session_order, request.depth, request.order)


def arrival_order(request: Request) -> OrderKey:
    """First come, first served."""
    return (request.order,)


def attained_service_order(request: Request) -> OrderKey:
    """The least attained service first, in levels, each first come, first served (Autellix).

    Service is that along the longest path of ended calls that leads to this one.
    """
    levels = 1 + (request.attained_tokens or 0.0) / FIRST_LEVEL_TOKENS
    return (math.floor(math.log2(levels)), request.order)


ORDERINGS: dict[OrderingName, Ordering] = {
    "application": application_order,
    "urgency": urgency_order,
    "critical_path": critical_path_order,
    "shortest_job": shortest_job_order,
    "topological": topological_order,
    "fcfs": arrival_order,
    "attained_service": attained_service_order,
}

#: Order of what is old, where it is another: the bulk of work gets its turn there, too.
_OLD_ORDERINGS: dict[Ordering, Ordering] = {
    urgency_order: topological_order,
    critical_path_order: topological_order,
    shortest_job_order: topological_order,
    attained_service_order: arrival_order,
}

#: Orders whose first number is a class: no tenant's share makes up for being of a later one.
_WITH_CLASSES = frozenset(
    {application_order, urgency_order, critical_path_order, shortest_job_order}
)

_OWN_ORDERING: dict[str, OrderingName] = {
    "paper": "urgency",
    "cost": "urgency",
    "fcfs": "fcfs",
    "round_robin": "fcfs",
    "power_of_two": "fcfs",
    "session_affinity": "fcfs",
    "cache_aware": "fcfs",
    "kv_exact": "fcfs",
}


def ordering_name(config: SchedulerConfig) -> OrderingName:
    """Return the configured order, or the one that belongs to the placement policy."""
    return config.ordering or _OWN_ORDERING.get(config.placement, "application")


def ordering_of(config: SchedulerConfig) -> Ordering:
    """Return the function of the configured order."""
    return ORDERINGS[ordering_name(config)]


def old_ordering_of(ordering: Ordering) -> Ordering:
    """Return the order that old requests have among each other."""
    return _OLD_ORDERINGS.get(ordering, ordering)


def serves_runs(ordering: Ordering) -> bool:
    """Tell whether old requests are served run by run."""
    return old_ordering_of(ordering) is topological_order


def has_classes(ordering: Ordering) -> bool:
    """Tell whether an order puts classes before everything else."""
    return ordering in _WITH_CLASSES


def _is_bulk(request: Request) -> bool:
    return request.objective.objective_class is ObjectiveClass.THROUGHPUT


def _scarce_until_s(request: Request) -> float:
    return request.latest_start_s if request.is_pressed else math.inf
