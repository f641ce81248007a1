"""Instances of bodies: the nodes and variables that a control node adds when it runs. Pure.

Everything that a body makes is named ``node:index:local`` in an instance, where ``node`` is the
name of the control node; so names of instances within instances go on: ``m:0:b:1:x``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from parrot_backend.core.bodies import ControlPlan
from parrot_backend.core.build import build_nodes
from parrot_backend.core.control import ControlNode, Instance, Made, Names, make_control
from parrot_backend.core.control_specs import MapSpec
from parrot_backend.core.events import CallSpec, TransformSpec
from parrot_backend.core.ids import NodeId, SessionId, name_of, session_of, variable_id
from parrot_backend.core.nodes import Node
from parrot_backend.core.prompt import Input, Output, Segment
from parrot_backend.core.variable import Variable, VariableState


@dataclass(frozen=True, slots=True)
class Cost:
    """How much instances add: nodes, LLM requests among them, edges, and text of items."""

    instances: int
    nodes: int
    requests: int
    references: int
    chars: int


@dataclass(slots=True)
class Expansion:
    """What instances add to a graph.

    Attributes:
        variables: Items of a list, which are there, and what the nodes make.
        nodes: In topological order.
        made: The instances, with the names they got.
    """

    variables: list[Variable] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)


def cost_of(instances: Sequence[Instance]) -> Cost:
    """Return how much instances would add; inner bodies count when their time comes."""
    nodes = requests = references = chars = 0
    for instance in instances:
        nodes += len(instance.body.order)
        requests += instance.body.num_requests
        references += instance.body.num_references
        chars += len(instance.item or "")
    return Cost(len(instances), nodes, requests, references, chars)


def expand(control: ControlNode, instances: Iterable[Instance]) -> Expansion:
    """Return what the instances of a control node add."""
    expansion = Expansion()
    session = session_of(control.id)
    for instance in instances:
        prefix = f"{name_of(control.id)}:{instance.index}:"
        own = dict(instance.parameters)
        if instance.item is not None:
            spec = control.plan.spec
            assert isinstance(spec, MapSpec)
            own[spec.item] = variable_id(session, prefix + name_of(spec.item))
            item = Variable(own[spec.item], state=VariableState.READY, value=instance.item)
            expansion.variables.append(item)
        for local in instance.body.makes:
            own[local] = variable_id(session, prefix + name_of(local))
        names = Names(own, control.names)
        built: list[Node] = []
        for plan in instance.body.nodes:
            if isinstance(plan, ControlPlan):
                built.append(_inner(plan, control, session, prefix, names))
            else:
                built += build_nodes(_renamed(plan, prefix, names), session, control.tenant)
        nodes = [built[position] for position in instance.body.order]
        expansion.nodes += nodes
        expansion.variables += [Variable(node.output, producer=node.id) for node in nodes]
        expansion.made.append((instance, names))
    return expansion


def _inner(
    plan: ControlPlan, control: ControlNode, session: SessionId, prefix: str, names: Names
) -> ControlNode:
    node = NodeId(f"{session}.{prefix}{plan.spec.name}")
    return make_control(
        plan, node, names[plan.spec.output], control.tenant, control.level + 1, names
    )


def _renamed(spec: CallSpec | TransformSpec, prefix: str, names: Names) -> CallSpec | TransformSpec:
    name = prefix + spec.name
    if isinstance(spec, CallSpec):
        segments = tuple(_renamed_segment(segment, names) for segment in spec.segments)
        return replace(spec, name=name, segments=segments)
    content = tuple(
        replace(segment, variable=names[segment.variable])
        if isinstance(segment, Input)
        else segment
        for segment in spec.segments
    )
    return replace(spec, name=name, segments=content, output=names[spec.output])


def _renamed_segment(segment: Segment, names: Names) -> Segment:
    if isinstance(segment, Input | Output):
        return replace(segment, variable=names[segment.variable])
    return segment
