"""What a client declared, found by the name that it got in an instance of a body.

This follows the names alone, without the core: another way to know what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from parrot_backend.core.control_specs import BodySpec, BranchSpec, ControlSpec, LoopSpec, MapSpec
from parrot_backend.core.events import CallSpec, NodeSpec, TransformSpec
from parrot_backend.core.ids import NodeId, SessionId, VariableId, name_of, session_of
from parrot_backend.core.prompt import Input, Output, Segment
from tests.helpers.builders import var

#: What the names of bodies mean; all others mean themselves.
Meaning = Mapping[VariableId, VariableId]


class Declared:
    """The nodes that sessions declared."""

    def __init__(self) -> None:
        self._specs: dict[tuple[SessionId, str], NodeSpec] = {}

    def add(self, session: SessionId, specs: Iterable[NodeSpec]) -> None:
        """Take in a submit."""
        for spec in specs:
            self._specs[session, spec.name] = spec

    def request(self, node: NodeId) -> tuple[tuple[Segment, ...], int]:
        """Return the segments of the call that a request is of, and the place of its output."""
        name, _, step = name_of(node).partition("#")
        session = session_of(node)
        *path, local = name.split(":")
        meaning: Meaning = {}
        nodes: Mapping[str, NodeSpec] = {
            known: spec for (of, known), spec in self._specs.items() if of == session
        }
        for position in range(0, len(path), 2):
            control = nodes[path[position]]
            assert not isinstance(control, CallSpec | TransformSpec)
            prefix = ":".join(path[: position + 1])
            body, meaning = instance(control, session, prefix, int(path[position + 1]), meaning)
            nodes = {spec.name: spec for spec in body.nodes}
        call = nodes[local]
        assert isinstance(call, CallSpec)
        segments = tuple(_renamed(segment, meaning) for segment in call.segments)
        places = [i for i, segment in enumerate(segments) if isinstance(segment, Output)]
        return segments, places[int(step)]


def instance(
    control: ControlSpec, session: SessionId, name: str, index: int, outer: Meaning
) -> tuple[BodySpec, Meaning]:
    """Return the body of an instance, and what the names in it mean."""
    body = body_of(control, index)

    def own(number: int) -> dict[VariableId, VariableId]:
        makes = [made for spec in body.nodes for made in made_by(spec)]
        if isinstance(control, MapSpec):
            makes.append(control.item)
        return {made: var(f"{name}:{number}:{name_of(made)}", session) for made in makes}

    if not isinstance(control, LoopSpec):
        return body, {**outer, **own(index)}
    parameters = {v.name: outer.get(v.initial, v.initial) for v in control.variables}
    for number in range(index):
        meaning = {**outer, **parameters, **own(number)}
        parameters = {v.name: meaning.get(v.next, v.next) for v in control.variables}
    return body, {**outer, **parameters, **own(index)}


def body_of(control: ControlSpec, index: int) -> BodySpec:
    """Return the body of an instance."""
    if isinstance(control, BranchSpec):
        return [*(case.body for case in control.cases), control.otherwise][index]
    return control.body


def made_by(spec: NodeSpec) -> list[VariableId]:
    """Return the variables that a node makes."""
    if isinstance(spec, CallSpec):
        return [segment.variable for segment in spec.segments if isinstance(segment, Output)]
    return [spec.output]


def _renamed(segment: Segment, meaning: Meaning) -> Segment:
    if isinstance(segment, Input | Output):
        return replace(segment, variable=meaning.get(segment.variable, segment.variable))
    return segment
