"""Which nodes nobody can want: nothing that is wanted depends on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId, VariableId
from parrot_backend.core.nodes import Node

#: Code of the failure of a variable that is not made because nobody can want it.
PRUNED = "pruned"


def unneeded(
    graph: SessionGraph, nodes: Sequence[Node], wanted: Iterable[VariableId]
) -> list[Node]:
    """Return the nodes that no wanted variable is made of, readers before what they read.

    What a control node may come to read counts as read, whatever its instances do in the end.

    Args:
        graph: The graph that holds them.
        nodes: Nodes in topological order.
        wanted: The variables that somebody wants.
    """
    needed = set[NodeId]()
    pending = list(wanted)
    while pending:
        producer = graph.variables[pending.pop()].producer
        if producer is not None and producer not in needed:
            needed.add(producer)
            pending += graph.nodes[producer].reads
    return [node for node in reversed(nodes) if node.id not in needed]
