"""The DAG of one session: checking what a client submits, and adding it.

``plan`` checks a whole submission and builds its nodes without touching the graph; ``apply`` adds
the result. Nodes are kept in topological order, so that walking them backwards visits every reader
before what it reads.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from parrot_backend.core.events import CallSpec, GraphSubmitted, NodeSpec, TransformSpec
from parrot_backend.core.ids import NodeId, SessionId, VariableId, name_of, variable_id
from parrot_backend.core.nodes import Node, Request, TransformNode
from parrot_backend.core.prompt import InPlace, Input, Output, PromptSegment
from parrot_backend.core.transforms import check_transform
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.errors import RequestError

#: Each output holds all that stands before it, so a call costs the square of its outputs.
MAX_OUTPUTS_PER_CALL = 128

#: Edges cost time, too; these are some tenths of a second.
MAX_REFERENCES_PER_SUBMIT = 50_000

#: Most text that the values of one session may hold together.
MAX_SESSION_CHARS = 64 * 2**20


@dataclass(frozen=True, slots=True)
class GraphDelta:
    """A checked submission: new variables, and new nodes in topological order."""

    variables: tuple[Variable, ...]
    nodes: tuple[Node, ...]

    @property
    def num_requests(self) -> int:
        """How many of the nodes are LLM requests."""
        return sum(isinstance(node, Request) for node in self.nodes)


class SessionGraph:
    """Variables and nodes of one session.

    Attributes:
        variables: By id, in order of submission.
        nodes: By id, in topological order.
        text_chars: Length of all values together.
    """

    def __init__(self, session: SessionId) -> None:
        self.session = session
        self.variables: dict[VariableId, Variable] = {}
        self.nodes: dict[NodeId, Node] = {}
        self.text_chars = 0
        self._node_names: set[str] = set()

    def plan(self, submission: GraphSubmitted, max_nodes: int) -> GraphDelta:
        """Check a submission against this graph and build what it adds; changes nothing.

        Raises:
            RequestError: ``duplicate_variable``, ``duplicate_call``, ``unknown_variable``,
                ``cycle_in_graph``, ``template_without_output``, ``empty_prompt``,
                ``invalid_transform``, ``graph_too_large``, ``session_too_large`` or
                ``variable_not_set``.
        """
        self._check_names(submission.nodes)
        for spec in submission.nodes:
            _check_outputs(spec)
        nodes = [node for spec in submission.nodes for node in self._expand(spec, submission)]
        if len(self.nodes) + len(nodes) > max_nodes:
            raise RequestError(
                "graph_too_large",
                f"the session would hold {len(self.nodes) + len(nodes)} nodes, {max_nodes} are "
                "allowed",
                limit=max_nodes,
            )
        references = sum(len(node.inputs) for node in nodes)
        if references > MAX_REFERENCES_PER_SUBMIT:
            raise RequestError(
                "graph_too_large",
                f"the calls read {references} variables together, {MAX_REFERENCES_PER_SUBMIT} are "
                "allowed in one submit",
                limit=MAX_REFERENCES_PER_SUBMIT,
            )
        variables = self._new_variables(submission, nodes)
        self._check_references(submission, nodes, variables)
        self.check_room(sum(len(v.value) for v in variables.values() if v.value is not None))
        if submission.close:
            self._check_all_set(variables.values())
        return GraphDelta(tuple(variables.values()), _in_topological_order(nodes))

    def apply(self, delta: GraphDelta, now_s: float) -> list[Node]:
        """Add a planned delta: variables, nodes, and the links between them.

        Returns:
            Unfinished nodes that now have a longer way to go than before.
        """
        for variable in delta.variables:
            self.variables[variable.id] = variable
            self.text_chars += len(variable.value or "")
        for node in delta.nodes:
            node.index = len(self.nodes)
            node.created_s = now_s
            self.nodes[node.id] = node
            self._node_names.add(_call_name(node.id))
            node.depth = 1 + max((p.depth for p in self.predecessors(node)), default=-1)
            for used in node.inputs:
                self.variables[used].consumers.append(node.id)
        return self._lengthen_paths(delta.nodes)

    def check_room(self, num_chars: int) -> None:
        """Check that the session may hold so much more text.

        Raises:
            RequestError: ``session_too_large``.
        """
        if self.text_chars + num_chars > MAX_SESSION_CHARS:
            raise RequestError(
                "session_too_large",
                f"the values of the session would have more than {MAX_SESSION_CHARS} characters",
                limit=MAX_SESSION_CHARS,
            )

    def predecessors(self, node: Node) -> Iterator[Node]:
        """Yield the producers of a node's inputs, in order of use; may repeat none."""
        for used in node.inputs:
            producer = self.variables[used].producer
            if producer is not None:
                yield self.nodes[producer]

    def consumers(self, variable: Variable) -> Iterator[Node]:
        """Yield the nodes that read a variable, in order of submission."""
        for node in variable.consumers:
            yield self.nodes[node]

    def _lengthen_paths(self, nodes: Iterable[Node]) -> list[Node]:
        lengthened: dict[NodeId, Node] = {}
        # By falling topological index, so that each node is final when its turn comes.
        heap = [(-node.index, node.id) for node in nodes]
        heapq.heapify(heap)
        while heap:
            node = self.nodes[heapq.heappop(heap)[1]]
            for before in self.predecessors(node):
                # What has ended is never ordered again.
                if before.remaining > node.remaining or before.has_ended:
                    continue
                before.remaining = node.remaining + 1
                if before.id not in lengthened:
                    lengthened[before.id] = before
                    heapq.heappush(heap, (-before.index, before.id))
        return list(lengthened.values())

    def _check_names(self, specs: tuple[NodeSpec, ...]) -> None:
        seen = set[str]()
        for spec in specs:
            if spec.name in seen or spec.name in self._node_names:
                raise RequestError("duplicate_call", f"there is already a call named {spec.name!r}")
            seen.add(spec.name)

    def _expand(self, spec: NodeSpec, submission: GraphSubmitted) -> list[Node]:
        if isinstance(spec, TransformSpec):
            return [self._transform(spec)]
        return list(self._requests(spec, submission.tenant))

    def _transform(self, spec: TransformSpec) -> TransformNode:
        for transform in spec.transforms:
            check_transform(transform)
        return TransformNode(
            id=NodeId(f"{self.session}.{spec.name}"),
            inputs=_inputs_of(spec.segments),
            output=spec.output,
            segments=spec.segments,
            transforms=spec.transforms,
        )

    def _requests(self, spec: CallSpec, tenant: str) -> Iterator[Request]:
        before: list[PromptSegment] = []
        num_outputs = 0
        for segment in spec.segments:
            if not isinstance(segment, Output):
                before.append(segment)
                continue
            if not before:
                raise RequestError("empty_prompt", f"call {spec.name!r} has no prompt")
            yield Request(
                id=NodeId(f"{self.session}.{spec.name}#{num_outputs}"),
                inputs=_inputs_of(before),
                output=segment.variable,
                session=self.session,
                tenant=tenant,
                model=spec.model,
                chat=spec.chat,
                segments=tuple(before),
                sampling=segment.sampling,
            )
            before.append(InPlace(segment.variable))
            num_outputs += 1

    def _new_variables(
        self, submission: GraphSubmitted, nodes: list[Node]
    ) -> dict[VariableId, Variable]:
        variables: dict[VariableId, Variable] = {}

        def add(variable: Variable) -> None:
            if variable.id in self.variables or variable.id in variables:
                raise RequestError(
                    "duplicate_variable", f"there is already a variable named {variable.name!r}"
                )
            variables[variable.id] = variable

        for spec in submission.variables:
            state = VariableState.EMPTY if spec.value is None else VariableState.READY
            add(Variable(variable_id(self.session, spec.name), state=state, value=spec.value))
        for node in nodes:
            add(Variable(node.output, producer=node.id))
        return variables

    def _check_references(
        self,
        submission: GraphSubmitted,
        nodes: list[Node],
        variables: dict[VariableId, Variable],
    ) -> None:
        used = [(node.inputs, f"call {_call_name(node.id)!r}") for node in nodes]
        wanted = tuple(wanted.variable for wanted in submission.wanted)
        for ids, user in [*used, (wanted, "the list of outputs")]:
            for variable in ids:
                if variable not in variables and variable not in self.variables:
                    message = f"{user} names an unknown variable {name_of(variable)!r}"
                    raise RequestError("unknown_variable", message).with_status(422)

    def _check_all_set(self, new: Iterable[Variable]) -> None:
        for variable in [*self.variables.values(), *new]:
            if variable.producer is None and variable.state is VariableState.EMPTY:
                raise RequestError(
                    "variable_not_set",
                    f"variable {variable.name!r} has no value and no call makes it, but the "
                    "session is to be closed",
                )


def requests_fed_by(graph: SessionGraph, variable: VariableId) -> Iterator[Request]:
    """Yield the requests that read a variable, as it is or through transforms."""
    pending, seen = [variable], set[NodeId]()
    while pending:
        for node in graph.consumers(graph.variables[pending.pop()]):
            if node.id in seen:
                continue
            seen.add(node.id)
            if isinstance(node, Request):
                yield node
            else:
                pending.append(node.output)


def _check_outputs(spec: NodeSpec) -> None:
    if isinstance(spec, TransformSpec):
        return
    outputs = sum(isinstance(segment, Output) for segment in spec.segments)
    if not outputs:
        message = f"call {spec.name!r} generates nothing: add an output"
        raise RequestError("template_without_output", message)
    if outputs > MAX_OUTPUTS_PER_CALL:
        message = f"call {spec.name!r} has {outputs} outputs, {MAX_OUTPUTS_PER_CALL} are allowed"
        raise RequestError("graph_too_large", message, limit=MAX_OUTPUTS_PER_CALL)


def _inputs_of(segments: Iterable[PromptSegment]) -> tuple[VariableId, ...]:
    """Return the distinct variables read; check their transforms."""
    inputs: dict[VariableId, None] = {}
    for segment in segments:
        if isinstance(segment, Input):
            for transform in segment.transforms:
                check_transform(transform)
        if isinstance(segment, Input | InPlace):
            inputs[segment.variable] = None
    return tuple(inputs)


def _in_topological_order(nodes: list[Node]) -> tuple[Node, ...]:
    producer = {node.output: node.id for node in nodes}
    by_id = {node.id: node for node in nodes}
    sorter: TopologicalSorter[NodeId] = TopologicalSorter(
        {node.id: [producer[used] for used in node.inputs if used in producer] for node in nodes}
    )
    try:
        return tuple(by_id[node] for node in sorter.static_order())
    except CycleError as exc:
        names = " -> ".join(_call_name(node) for node in reversed(exc.args[1]))
        raise RequestError("cycle_in_graph", f"the calls wait for each other: {names}") from exc


def _call_name(node: NodeId) -> str:
    return name_of(node).partition("#")[0]
