"""The engine's part of a session's time: what no client and no network can shorten."""

from __future__ import annotations

from graphlib import TopologicalSorter

from parrot_backend.protocol import SessionView


def critical_path_s(session: SessionView) -> float:
    """Return the engine's time for the longest chain of dependent calls."""
    needs = {node.output: set(node.inputs) for node in session.nodes}
    for control in (n for n in session.nodes if n.kind in ("map", "branch", "loop")):
        begun = f"{control.id.partition('.')[2]}:"
        needs[control.output] |= {output for output in needs if output.startswith(begun)}
    own_s = {node.output: node.engine_s or 0.0 for node in session.nodes}
    order = TopologicalSorter({output: needs[output] & own_s.keys() for output in needs})
    done_s: dict[str, float] = {}
    for output in order.static_order():
        before_s = max((done_s[used] for used in needs[output] if used in done_s), default=0.0)
        done_s[output] = before_s + own_s[output]
    return max(done_s.values(), default=0.0)
