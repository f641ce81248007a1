"""Checking the bodies of control nodes at submit, and what is known of them from then on.

A plan is made once, when a control node is submitted; each instance is made of it without further
checks. So whatever is wrong with a body is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from parrot_backend.core.build import (
    build_nodes,
    call_name,
    check_input,
    check_outputs,
    in_topological_order,
    outputs_of,
)
from parrot_backend.core.control_specs import (
    BodySpec,
    BranchSpec,
    ControlSpec,
    LoopSpec,
    MapSpec,
    kind_of,
)
from parrot_backend.core.events import CallSpec, NodeSpec, TransformSpec
from parrot_backend.core.ids import NodeId, SessionId, VariableId, name_of
from parrot_backend.core.nodes import Node
from parrot_backend.errors import RequestError

#: Bodies within bodies; each level multiplies what a small submit may come to.
MAX_LEVELS = 8


@dataclass(frozen=True, slots=True, eq=False)
class BodyPlan:
    """A checked body.

    Attributes:
        nodes: What it is made of.
        order: Positions of the built nodes, in topological order.
        makes: Its variables.
        result: One of them, a parameter, or a variable of the surrounding graph.
        reads: What of the surrounding graph it may read.
        num_requests: LLM requests of one instance, without those of inner bodies.
        num_references: Segments that its nodes hold, and variables that its control nodes read.
        length: Longest path in one instance, in nodes.
    """

    nodes: tuple[CallSpec | TransformSpec | ControlPlan, ...]
    order: tuple[int, ...]
    makes: tuple[VariableId, ...]
    result: VariableId
    reads: tuple[VariableId, ...]
    num_requests: int
    num_references: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class ControlPlan:
    """A checked control node.

    Attributes:
        bodies: Of a branch all cases in order, then the other; else just one.
        inputs: Variables that must be there before anything is decided.
        captures: Variables of the surrounding graph that bodies may read, beside those.
    """

    spec: ControlSpec
    bodies: tuple[BodyPlan, ...]
    inputs: tuple[VariableId, ...]
    captures: tuple[VariableId, ...]

    @property
    def length(self) -> int:
        """Longest path in one instance of any of the bodies, in nodes."""
        return max(body.length for body in self.bodies)

    @property
    def num_nodes(self) -> int:
        """Nodes in all bodies, inner ones included, each body counted once."""
        inner = (n.num_nodes for b in self.bodies for n in b.nodes if isinstance(n, ControlPlan))
        return sum(len(body.order) for body in self.bodies) + sum(inner)

    @property
    def num_references(self) -> int:
        """The same of all bodies, counted like the nodes."""
        inner = (
            n.num_references for b in self.bodies for n in b.nodes if isinstance(n, ControlPlan)
        )
        return sum(body.num_references for body in self.bodies) + sum(inner)


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables that can be seen somewhere: its own, and those of the scope around it."""

    own: Collection[VariableId]
    outer: Scope | None = None

    def __contains__(self, variable: VariableId) -> bool:
        return variable in self.own or (self.outer is not None and variable in self.outer)


def calls_of(specs: Iterable[NodeSpec]) -> Iterator[CallSpec]:
    """Yield all calls in order, those in bodies too."""
    for spec in specs:
        if isinstance(spec, CallSpec):
            yield spec
        elif not isinstance(spec, TransformSpec):
            for body in _bodies_of(spec):
                yield from calls_of(body.nodes)


class BodyChecker:
    """Checks the control nodes of one submit.

    Args:
        session: The session that it is for.
        tenant: Whose it is.
    """

    def __init__(self, session: SessionId, tenant: str) -> None:
        self._session = session
        self._tenant = tenant

    def plan(self, spec: ControlSpec, scope: Scope, level: int = 1) -> ControlPlan:
        """Check a control node and all its bodies.

        Args:
            spec: What is declared.
            scope: What it can see.
            level: How many bodies deep its own bodies are.

        Raises:
            RequestError: See :meth:`SessionGraph.plan`.
        """
        owner = f"{kind_of(spec)} {spec.name!r}"
        if level > MAX_LEVELS:
            message = f"{owner}: bodies may lie {MAX_LEVELS} deep in each other"
            raise RequestError("graph_too_large", message, limit=MAX_LEVELS)
        initial: list[VariableId] = []
        match spec:
            case MapSpec():
                check_input(spec.items)
                inputs = [spec.items.variable]
                bodies = [self._body(spec.body, owner, scope, level, [spec.item])]
            case BranchSpec():
                inputs = [case.when.input.variable for case in spec.cases]
                for case in spec.cases:
                    check_input(case.when.input)
                bodies = [self._body(b, owner, scope, level) for b in _bodies_of(spec)]
            case LoopSpec():
                check_input(spec.until.input)
                inputs, initial = [], [variable.initial for variable in spec.variables]
                parameters = [variable.name for variable in spec.variables]
                uses = [spec.until.input.variable, *(v.next for v in spec.variables)]
                bodies = [self._body(spec.body, owner, scope, level, parameters, uses)]
        _check_known([*inputs, *initial], scope, owner)
        reads = dict.fromkeys([*initial, *(used for body in bodies for used in body.reads)])
        captures = tuple(used for used in reads if used not in inputs)
        return ControlPlan(spec, tuple(bodies), tuple(dict.fromkeys(inputs)), captures)

    def _body(
        self,
        body: BodySpec,
        owner: str,
        scope: Scope,
        level: int,
        parameters: Collection[VariableId] = (),
        uses: Collection[VariableId] = (),
    ) -> BodyPlan:
        """Check one body; ``uses`` are names that the control node itself takes from it."""
        check_names(body.nodes, (), f" in {owner}")
        for spec in body.nodes:
            check_outputs(spec)
        makes = [made for spec in body.nodes for made in outputs_of(spec)]
        own = _distinct([*parameters, *makes], scope, owner)
        inner = Scope(own, scope)
        plans = [
            spec
            if isinstance(spec, CallSpec | TransformSpec)
            else self.plan(spec, inner, level + 1)
            for spec in body.nodes
        ]
        nodes = [node for plan in plans for node in self._sketch(plan)]
        for node in nodes:
            _check_known(node.reads, inner, f"call {call_name(node.id)!r} in {owner}")
        _check_known([body.result, *uses], inner, owner)
        ordered = in_topological_order(nodes)
        position = {node.id: i for i, node in enumerate(nodes)}
        steps = {
            plan.spec.output: 1 + plan.length for plan in plans if isinstance(plan, ControlPlan)
        }
        ends: dict[VariableId, int] = {}
        for node in ordered:
            begin = max((ends.get(used, 0) for used in node.reads), default=0)
            ends[node.output] = begin + steps.get(node.output, 1)
        read = dict.fromkeys([*(u for n in nodes for u in n.reads), body.result, *uses])
        return BodyPlan(
            nodes=tuple(plans),
            order=tuple(position[node.id] for node in ordered),
            makes=tuple(makes),
            result=body.result,
            reads=tuple(used for used in read if used not in own),
            num_requests=sum(len(outputs_of(s)) for s in body.nodes if isinstance(s, CallSpec)),
            num_references=sum(node.num_references for node in nodes),
            length=max(ends.values(), default=0),
        )

    def _sketch(self, plan: CallSpec | TransformSpec | ControlPlan) -> list[Node]:
        """Return the nodes of a part of a body under their declared names."""
        if not isinstance(plan, ControlPlan):
            return build_nodes(plan, self._session, self._tenant)
        node_id = NodeId(f"{self._session}.{plan.spec.name}")
        return [Node(node_id, (*plan.inputs, *plan.captures), plan.spec.output)]


def check_names(specs: Iterable[NodeSpec], taken: Collection[str], where: str = "") -> None:
    """Check that no two nodes have the same name.

    Raises:
        RequestError: ``duplicate_call``.
    """
    seen = set[str]()
    for spec in specs:
        if spec.name in seen or spec.name in taken:
            message = f"there is already a call named {spec.name!r}{where}"
            raise RequestError("duplicate_call", message)
        seen.add(spec.name)


def _bodies_of(spec: ControlSpec) -> list[BodySpec]:
    if isinstance(spec, BranchSpec):
        return [*(case.body for case in spec.cases), spec.otherwise]
    return [spec.body]


def _distinct(variables: Iterable[VariableId], scope: Scope, owner: str) -> set[VariableId]:
    own = set[VariableId]()
    for variable in variables:
        if variable in own or variable in scope:
            message = f"{owner}: there is already a variable named {name_of(variable)!r}"
            raise RequestError("duplicate_variable", message)
        own.add(variable)
    return own


def _check_known(variables: Iterable[VariableId], scope: Scope, user: str) -> None:
    for variable in variables:
        if variable not in scope:
            message = f"{user} names an unknown variable {name_of(variable)!r}"
            raise RequestError("unknown_variable", message).with_status(422)
