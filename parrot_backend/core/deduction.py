"""Performance-objective deduction: from what the user wants to what each request needs.

The rules of the paper (section 5.2): everything that leads to a throughput variable prefers
throughput. From a latency variable the walk goes back in reverse topological order, in *stages*
(longest distance to the variable, counted in requests). A request alone in its stage is on the
serial path and latency-sensitive; requests that share a stage run in parallel and form a task
group, whose completion as a group is what counts.

Where several latency variables disagree, the stricter wish wins: serial for one of them is
latency-sensitive; groups that overlap become one. Such a request is *bounded* if it leads to a
variable for which latency, or a target, was asked for. The result is a function of the graph and
the annotations, so the order in which values were asked for cannot matter.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from parrot_backend.core.criteria import Criteria, Objective, ObjectiveClass
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId, TaskGroupId, VariableId
from parrot_backend.core.nodes import Node, Request


def deduce_objectives(
    graph: SessionGraph, annotations: Mapping[VariableId, Criteria]
) -> dict[NodeId, Objective]:
    """Return the objective of every unfinished request that some annotated variable needs.

    What has ended is looked at only where it stands beside unfinished requests in a stage.

    Args:
        graph: The session's graph; not changed.
        annotations: What the user wants of which variable.
    """
    if len(graph.nodes) == 1:
        return _objective_alone(next(iter(graph.nodes.values())), annotations)
    stages = _Stages(graph)
    for variable, criteria in annotations.items():
        producer = graph.variables[variable].producer
        if producer is not None and criteria.is_latency_sensitive:
            stages.walk(graph.nodes[producer])
    classes = stages.classes()
    deadlines = _deadlines(graph, annotations)
    bounded = {n.id for n in _needed(graph, {v: c for v, c in annotations.items() if c.is_bounded})}
    targets = {graph.variables[v].producer: (c.tpot_s, c.ttft_s) for v, c in annotations.items()}
    return {
        node.id: Objective(
            *(found := classes.get(node.id, _THROUGHPUT)),
            deadlines.get(node.id),
            (own := targets.get(node.id, _NO_TARGETS))[0],
            found == _THROUGHPUT or node.id in bounded,
            own[1],
        )
        for node in _needed(graph, annotations)
        if isinstance(node, Request)
    }


def _objective_alone(
    node: Node, annotations: Mapping[VariableId, Criteria]
) -> dict[NodeId, Objective]:
    """Return the objective of the only node of a graph: most calls come alone."""
    criteria = annotations.get(node.output)
    if criteria is None or node.has_ended or not isinstance(node, Request):
        return {}
    found = _SERIAL if criteria.is_latency_sensitive else _THROUGHPUT
    is_bounded = found == _THROUGHPUT or criteria.is_bounded
    return {
        node.id: Objective(
            *found, criteria.deadline_s, criteria.tpot_s, is_bounded, criteria.ttft_s
        )
    }


def nodes_concerned(graph: SessionGraph, changed: Collection[NodeId]) -> Iterable[Node]:
    """Return the nodes whose objectives may be others now; those of all others are as before.

    Walks go upstream as far as the first node that has ended, and nodes that are met by several
    walks bind these together. So a change matters to whatever hangs together with it, through
    unfinished nodes and through ended ones that are read by them.

    Args:
        graph: The session's graph; not changed.
        changed: Nodes that are new, have ended, or are wanted otherwise than before.
    """
    if 2 * len(changed) >= len(graph.nodes):
        return graph.nodes.values()  # to look for the others would cost more
    found = {node_id: graph.nodes[node_id] for node_id in changed}
    stack = list(found.values())
    while stack:
        node = stack.pop()
        beside = [n for n in graph.readers(graph.variables[node.output]) if not n.has_ended]
        if not node.has_ended or node.id in changed:  # what has ended just now went on upstream
            beside += graph.predecessors(node)
        for other in beside:
            if other.id not in found:
                found[other.id] = other
                stack.append(other)
    return found.values()


_ClassAndGroup = tuple[ObjectiveClass, TaskGroupId | None]
_SERIAL: _ClassAndGroup = (ObjectiveClass.LATENCY, None)
_THROUGHPUT: _ClassAndGroup = (ObjectiveClass.THROUGHPUT, None)
_NO_TARGETS = (None, None)


@dataclass(slots=True)
class _Stages:
    """Stages of all walks so far.

    Attributes:
        serial: Requests that were alone in a stage of some walk.
        parallel: Member sets of the wider stages.
        fronts: What was pending whenever a walk entered a new stage with nothing left beside it.
    """

    graph: SessionGraph
    serial: dict[NodeId, None] = field(default_factory=dict)
    parallel: list[list[Request]] = field(default_factory=list)
    fronts: set[frozenset[tuple[NodeId, int]]] = field(default_factory=set)

    def walk(self, producer: Node) -> None:
        """Sort the ancestors of one latency variable into stages."""
        stage = {producer.id: 0}
        members: dict[int, list[Request]] = {}
        deepest = -1
        # Popping by falling topological index, all readers of a node come before the node.
        heap = [(-producer.index, producer.id)]
        while heap:
            here = stage[heap[0][1]]
            if here > deepest:
                if self._was_here(heap, stage, deepest):
                    break
                deepest = here
            node = self.graph.nodes[heapq.heappop(heap)[1]]
            if isinstance(node, Request):
                members.setdefault(here, []).append(node)
            if node.has_ended:
                continue  # so has all that is upstream
            step = 1 if isinstance(node, Request) else 0
            for before in self.graph.predecessors(node):
                if before.id not in stage:
                    heapq.heappush(heap, (-before.index, before.id))
                stage[before.id] = max(stage.get(before.id, 0), here + step)
        self._keep(members)

    def _was_here(
        self, heap: list[tuple[int, NodeId]], stage: dict[NodeId, int], deepest: int
    ) -> bool:
        """Tell whether an earlier walk came to the same front, and note it if not.

        When everything pending is deeper than everything visited, the rest of the walk depends on
        nothing but what is pending, with its relative depth: it would find the same again.
        """
        pending = [(node_id, stage[node_id] - deepest) for _, node_id in heap]
        if min(depth for _, depth in pending) <= 0:
            return False
        shallowest = min(depth for _, depth in pending)
        front = frozenset((node_id, depth - shallowest) for node_id, depth in pending)
        if front in self.fronts:
            # The front itself was sorted into stages by that walk, together with its surroundings.
            return True
        self.fronts.add(front)
        return False

    def _keep(self, members: dict[int, list[Request]]) -> None:
        for requests in members.values():
            if len(requests) == 1:
                self.serial[requests[0].id] = None
            else:
                self.parallel.append(requests)

    def classes(self) -> dict[NodeId, _ClassAndGroup]:
        """Return class and group of every request that leads to a latency variable."""
        groups = _Groups()
        for requests in self.parallel:
            groups.merge([r.id for r in requests if r.id not in self.serial])
        result: dict[NodeId, _ClassAndGroup] = {}
        for node_id in self.serial:
            result[node_id] = _SERIAL
        for name, ids in groups.items():
            # What is left of a stage when the others are serial elsewhere is serial here.
            member = (ObjectiveClass.TASK_GROUP, name) if len(ids) > 1 else _SERIAL
            result.update(dict.fromkeys(ids, member))
        return result


class _Groups:
    """Union-find over node ids; a group is named after its smallest member."""

    def __init__(self) -> None:
        self._parent: dict[NodeId, NodeId] = {}

    def merge(self, ids: list[NodeId]) -> None:
        for node_id in ids:
            self._parent.setdefault(node_id, node_id)
            a, b = self._root(ids[0]), self._root(node_id)
            self._parent[max(a, b)] = min(a, b)

    def items(self) -> list[tuple[TaskGroupId, list[NodeId]]]:
        members: dict[NodeId, list[NodeId]] = {}
        for node_id in self._parent:
            members.setdefault(self._root(node_id), []).append(node_id)
        return [(TaskGroupId(root), ids) for root, ids in members.items()]

    def _root(self, node_id: NodeId) -> NodeId:
        while self._parent[node_id] != node_id:
            self._parent[node_id] = self._parent[self._parent[node_id]]
            node_id = self._parent[node_id]
        return node_id


def _needed(graph: SessionGraph, annotations: Mapping[VariableId, Criteria]) -> list[Node]:
    """Return all ancestors of annotated variables."""
    found: dict[NodeId, Node] = {}
    stack = [
        graph.nodes[producer]
        for variable in annotations
        if (producer := graph.variables[variable].producer) is not None
    ]
    while stack:
        node = stack.pop()
        if node.id not in found and not node.has_ended:
            found[node.id] = node
            stack.extend(graph.predecessors(node))
    return list(found.values())


def _deadlines(
    graph: SessionGraph, annotations: Mapping[VariableId, Criteria]
) -> dict[NodeId, float]:
    """Return for each ancestor of a variable with a deadline the earliest of them."""
    found: dict[NodeId, float] = {}
    timed = [(c.deadline_s, v) for v, c in annotations.items() if c.deadline_s is not None]
    # The earliest deadline claims its ancestors first, so each node is visited once.
    for deadline_s, variable in sorted(timed):
        producer = graph.variables[variable].producer
        stack = [] if producer is None else [graph.nodes[producer]]
        while stack:
            node = stack.pop()
            if node.id not in found and not node.has_ended:
                found[node.id] = deadline_s
                stack.extend(graph.predecessors(node))
    return found
