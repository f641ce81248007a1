"""The DAG of one session: checking what a client submits, and adding it.

``plan`` checks a whole submission and builds its nodes without touching the graph; ``apply`` adds
the result, and ``grow`` what a control node brings forth when it runs. The ``index`` of a node is
above those of all that it reads, so that walking by falling index visits every reader before what
it reads.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parrot_backend.core.bodies import MAX_LEVELS, BodyChecker, Scope, calls_of, check_names
from parrot_backend.core.build import (
    build_nodes,
    call_name,
    check_outputs,
    check_references,
    in_topological_order,
    outputs_of,
    segments_held,
)
from parrot_backend.core.control import ControlNode, make_control
from parrot_backend.core.events import CallSpec, GraphSubmitted, TransformSpec
from parrot_backend.core.expansion import Expansion
from parrot_backend.core.ids import NodeId, SessionId, VariableId, name_of, variable_id
from parrot_backend.core.nodes import Node, Request
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.errors import RequestError

#: Segments and edges that the control nodes of a session may add; these are some seconds.
MAX_GROWN_REFERENCES = 200_000

#: Most text that the values of one session may hold together.
MAX_SESSION_CHARS = 64 * 2**20

#: Of the indexes below that of a control node so many, as bits, are for what it adds.
_INDEX_BITS = 32


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
        nodes: By id, in order of arrival.
        text_chars: Length of all values together.
        num_instances: Instances of bodies that were made.
        num_grown_references: What counts towards ``MAX_GROWN_REFERENCES``.
    """

    def __init__(self, session: SessionId) -> None:
        self.session = session
        self.variables: dict[VariableId, Variable] = {}
        self.nodes: dict[NodeId, Node] = {}
        self.text_chars = 0
        self.num_instances = 0
        self.num_grown_references = 0
        self._node_names: set[str] = set()

    def plan(self, submission: GraphSubmitted, max_nodes: int) -> GraphDelta:
        """Check a submission against this graph and build what it adds; changes nothing.

        Raises:
            RequestError: ``duplicate_variable``, ``duplicate_call``, ``unknown_variable``,
                ``cycle_in_graph``, ``template_without_output``, ``empty_prompt``,
                ``invalid_transform``, ``graph_too_large``, ``session_too_large`` or
                ``variable_not_set``.
        """
        check_names(submission.nodes, self._node_names)
        for spec in submission.nodes:
            check_outputs(spec)
        # Before they are built, which takes as much time.
        check_references(sum(map(segments_held, calls_of(submission.nodes))))
        nodes = self._build(submission)
        self._check_size(nodes, max_nodes)
        variables = self._new_variables(submission, nodes)
        self._check_known(submission, nodes, variables)
        self.check_room(sum(len(v.value) for v in variables.values() if v.value is not None))
        if submission.close:
            self._check_all_set(variables.values())
        return GraphDelta(tuple(variables.values()), in_topological_order(nodes))

    def apply(self, delta: GraphDelta, now_s: float) -> list[Node]:
        """Add a planned delta: variables, nodes, and the links between them.

        Returns:
            Unfinished nodes that now have a longer way to go than before.
        """
        for variable in delta.variables:
            self.variables[variable.id] = variable
            self.text_chars += len(variable.value or "")
        for node in delta.nodes:
            self._node_names.add(call_name(node.id))
            self._add(node, (len(self.nodes) + 1) << (_INDEX_BITS * (MAX_LEVELS + 1)), now_s)
        return self._lengthen_paths(delta.nodes)

    def grow(self, control: ControlNode, expansion: Expansion, now_s: float) -> list[Node]:
        """Add what a control node brings forth, before it, and let it wait for that.

        Returns:
            Unfinished nodes that now have a longer way to go than before.
        """
        for variable in expansion.variables:
            self.variables[variable.id] = variable
            self.text_chars += len(variable.value or "")
        below = _INDEX_BITS * (MAX_LEVELS + 1 - control.level)
        first = control.index - (1 << below)
        for node in expansion.nodes:
            control.num_placed += 1
            self._add(node, first + (control.num_placed << (below - _INDEX_BITS)), now_s)
            control.made.append(node.output)
        control.follow(expansion.made)
        self._link(control)
        self._deepen(control)
        return self._lengthen_paths([*expansion.nodes, control])

    def _add(self, node: Node, index: int, now_s: float) -> None:
        node.index = index
        node.created_s = now_s
        self.nodes[node.id] = node
        node.depth = 1 + max([p.depth for p in self.predecessors(node)], default=-1)
        self._link(node)

    def _link(self, node: Node) -> None:
        """Let variables know who waits for them, and who may come to read them."""
        if not isinstance(node, ControlNode):
            for used in node.inputs:
                self.variables[used].consumers.append(node.id)
            return
        for used in node.inputs:
            # What is there has said so already; a node that waits for it now must not hear twice.
            if not self.variables[used].is_settled:
                self.variables[used].consumers.append(node.id)
        for used in node.captures:
            self.variables[used].captors.append(node.id)

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
        """Return the producers of what a node reads or may come to read, in order of use."""
        return self.producers(node.reads)

    def producers(self, variables: Iterable[VariableId]) -> Iterator[Node]:
        """Yield the nodes that make variables, in their order."""
        for variable in variables:
            producer = self.variables[variable].producer
            if producer is not None:
                yield self.nodes[producer]

    def consumers(self, variable: Variable) -> Iterator[Node]:
        """Yield the nodes that read a variable, in order of submission."""
        for node in variable.consumers:
            yield self.nodes[node]

    def is_read(self, variable: VariableId) -> bool:
        """Tell whether any node reads a variable, or may come to."""
        found = self.variables[variable]
        return bool(found.consumers or found.captors)

    def readers(self, variable: Variable) -> Iterator[Node]:
        """Yield the nodes that read a variable, or may come to read it."""
        yield from self.consumers(variable)
        for node_id in variable.captors:
            node = self.nodes[node_id]
            if isinstance(node, ControlNode) and variable.id in node.captures:
                yield node

    def _deepen(self, node: Node) -> None:
        """Bring depths up to date from a node on that has got other predecessors."""
        node.depth = max(node.depth, *(1 + before.depth for before in self.predecessors(node)), 0)
        heap, seen = [(node.index, node.id)], {node.id}
        while heap:
            before = self.nodes[heapq.heappop(heap)[1]]
            for after in self.readers(self.variables[before.output]):
                if after.depth <= before.depth:
                    after.depth = before.depth + 1
                    if after.id not in seen:
                        seen.add(after.id)
                        heapq.heappush(heap, (after.index, after.id))

    def _lengthen_paths(self, nodes: Iterable[Node]) -> list[Node]:
        lengthened: dict[NodeId, Node] = {}
        # By falling topological index, so that each node is final when its turn comes.
        heap = [(-node.index, node.id) for node in nodes if node.reads]
        heapq.heapify(heap)
        while heap:
            node = self.nodes[heapq.heappop(heap)[1]]
            for before in self.predecessors(node):
                # What has ended is never ordered again.
                if before.remaining >= node.remaining + node.steps or before.has_ended:
                    continue
                before.remaining = node.remaining + node.steps
                if before.id not in lengthened:
                    lengthened[before.id] = before
                    heapq.heappush(heap, (-before.index, before.id))
        return list(lengthened.values())

    def _build(self, submission: GraphSubmitted) -> list[Node]:
        nodes: list[Node] = []
        scope: Scope | None = None
        for spec in submission.nodes:
            if isinstance(spec, CallSpec | TransformSpec):
                nodes += build_nodes(spec, self.session, submission.tenant)
                continue
            if scope is None:
                own = {made for other in submission.nodes for made in outputs_of(other)}
                own.update(variable_id(self.session, other.name) for other in submission.variables)
                scope = Scope(own, Scope(self.variables))
            plan = BodyChecker(self.session, submission.tenant).plan(spec, scope)
            node = NodeId(f"{self.session}.{spec.name}")
            nodes.append(make_control(plan, node, spec.output, submission.tenant))
        return nodes

    def _check_size(self, nodes: list[Node], max_nodes: int) -> None:
        plans = [node.plan for node in nodes if isinstance(node, ControlNode)]
        num_nodes = len(self.nodes) + len(nodes)
        in_bodies = sum([plan.num_nodes for plan in plans])
        if max(num_nodes, in_bodies) > max_nodes:
            what = f"the session would hold {num_nodes} nodes, its new bodies {in_bodies}"
            message = f"{what}; {max_nodes} are allowed"
            raise RequestError("graph_too_large", message, limit=max_nodes)
        references = sum([node.num_references for node in nodes])
        check_references(references + sum([plan.num_references for plan in plans]))

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

    def _check_known(
        self,
        submission: GraphSubmitted,
        nodes: list[Node],
        variables: dict[VariableId, Variable],
    ) -> None:
        def check(variable: VariableId, node: Node | None) -> None:
            if variable not in variables and variable not in self.variables:
                user = "the list of outputs" if node is None else f"call {call_name(node.id)!r}"
                message = f"{user} names an unknown variable {name_of(variable)!r}"
                raise RequestError("unknown_variable", message).with_status(422)

        for node in nodes:
            for used in node.inputs:
                check(used, node)
        for wanted in submission.wanted:
            check(wanted.variable, None)

    def _check_all_set(self, new: Iterable[Variable]) -> None:
        for variable in [*self.variables.values(), *new]:
            if variable.producer is None and variable.state is VariableState.EMPTY:
                raise RequestError(
                    "variable_not_set",
                    f"variable {variable.name!r} has no value and no call makes it, but the "
                    "session is to be closed",
                )
