"""What must be true of forecasts at any time: of paths, of jobs, and of who is in which."""

from __future__ import annotations

import pytest

from parrot_backend.core.nodes import Request
from parrot_backend.core.session import Session


def check_outlook(session: Session) -> None:
    """Check the paths and jobs of a session."""
    graph = session.graph
    unfinished = [node for node in graph.nodes.values() if not node.has_ended]
    for node in unfinished:
        assert node.path_tokens >= node.work_tokens - 1e-6
        for before in graph.predecessors(node):
            longer_tokens = before.work_tokens + node.path_tokens
            assert before.has_ended or before.path_tokens >= longer_tokens - 1e-6
    requests = {node.id: node for node in unfinished if isinstance(node, Request)}
    in_jobs = {node_id: r for job in session.jobs.values() for node_id, r in job.unfinished.items()}
    assert in_jobs == requests
    for place, job in session.jobs.items():
        assert {r.session_order for r in job.unfinished.values()} <= {place}
        expected_tokens = sum(r.job_tokens for r in job.unfinished.values())
        assert job.work_tokens == pytest.approx(expected_tokens, abs=1e-6)
