"""What a propagation may do, and what it did. Records only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from parrot_backend.core.ids import NodeId, VariableId
from parrot_backend.core.nodes import Node, Request
from parrot_backend.core.variable import Variable


@dataclass(slots=True)
class Effects:
    """What a propagation did.

    Attributes:
        ready: Requests whose inputs are all there, with their prompts resolved; some may have been
            stopped since.
        settled: Variables that got a value, failed or were cancelled.
        stopped: Requests that were queued or running and must not go on.
        added: Nodes that control nodes brought forth.
        lengthened: Unfinished nodes that have a longer way to go because of them.
        let_go: Variables that control nodes might have come to read, and will not.
    """

    ready: list[Request] = field(default_factory=list)
    settled: list[Variable] = field(default_factory=list)
    stopped: list[Request] = field(default_factory=list)
    added: list[Node] = field(default_factory=list)
    lengthened: dict[NodeId, Node] = field(default_factory=dict)
    let_go: list[VariableId] = field(default_factory=list)


class Limits(NamedTuple):
    """How far a graph may grow: nodes in all, and requests that may be added now."""

    nodes: int
    requests: int


#: For graphs that are nobody's.
UNLIMITED = Limits(2**62, 2**62)
