"""Attained service of calls: the most service along any path of ended calls that leads to one."""

from __future__ import annotations

from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.nodes import Node, Request


def attained_before(graph: SessionGraph, request: Request, of_program_tokens: float) -> float:
    """Return the service that a call which has just become ready inherits.

    It is the most that any of the calls before it had, with all before that. Where no call before
    it is known, it goes on from what its program had.

    Args:
        graph: The session's graph.
        request: The call; all that it reads is there.
        of_program_tokens: The most of any path of its program.
    """
    found = () if request.found is None else request.found.reads
    before = list(graph.producers((*request.inputs, *found)))
    if not before:
        return of_program_tokens
    return max(_attained(graph, node) for node in before)


def _attained(graph: SessionGraph, last: Node) -> float:
    """Return the service up to the end of a node; what lies between calls hands it on."""
    stack = [last]
    while stack:
        node = stack[-1]
        if node.attained_tokens is not None:
            stack.pop()
            continue
        before = list(graph.predecessors(node))
        unknown = [each for each in before if each.attained_tokens is None]
        if unknown and not isinstance(node, Request):
            stack += unknown
            continue
        node.attained_tokens = max((each.attained_tokens or 0.0 for each in before), default=0.0)
        stack.pop()
    assert last.attained_tokens is not None
    return last.attained_tokens
