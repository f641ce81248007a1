"""The workloads by name, with their parameters: what ``parrot simulate --app NAME`` offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from parrot_backend.sim.program import Arrival
from parrot_backend.sim.workloads.app import App
from parrot_backend.sim.workloads.checks import WorkloadError
from parrot_backend.sim.workloads.other_apps import AGENT_APPS, TRAFFIC_APPS
from parrot_backend.sim.workloads.paper_apps import PAPER_APPS
from parrot_backend.sim.workloads.settings import Settings, Value

APPS: dict[str, App] = {app.name: app for app in (*PAPER_APPS, *AGENT_APPS, *TRAFFIC_APPS)}


def make_workload(name: str, seed: int, given: Mapping[str, Value]) -> Iterator[Arrival]:
    """Return the arrivals of a workload; equal arguments give equal arrivals.

    Args:
        name: One of :data:`APPS`.
        seed: Of everything random.
        given: Parameters by name; texts are turned into what they must be.

    Raises:
        WorkloadError: There is no such workload or parameter, or a value is wrong.
    """
    app = APPS.get(name)
    if app is None:
        known = ", ".join(APPS)
        raise WorkloadError("unknown_app", f"there is no workload {name!r}; there are {known}")
    return app.build(Settings(name, app.parameters, given), seed)
