"""Wire to core: maps, branches and loops. Pure.

What they hold is converted by who calls; here names become ids. Names of a body are ids of the
session like all others: the core tells by the body which of them are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from parrot_backend import protocol as wire
from parrot_backend.core.control_specs import (
    BodySpec,
    BranchSpec,
    CaseSpec,
    Condition,
    ControlSpec,
    LoopSpec,
    LoopVariable,
    MapSpec,
)
from parrot_backend.core.events import NodeSpec
from parrot_backend.core.ids import SessionId, variable_id
from parrot_backend.core.prompt import Input

WireControlNode = wire.MapNode | wire.BranchNode | wire.LoopNode


@dataclass(frozen=True, slots=True)
class ControlConverter:
    """Converts control nodes of one submit.

    Attributes:
        session: The session that the submit is for.
        to_spec: Converts any node.
        to_input: Converts an input with its transforms.
    """

    session: SessionId
    to_spec: Callable[[wire.WireNode], NodeSpec]
    to_input: Callable[[wire.InputSegment], Input]

    def convert(self, node: WireControlNode) -> ControlSpec:
        """Return what the core is told of a control node."""
        output = variable_id(self.session, node.output)
        match node:
            case wire.MapNode():
                return MapSpec(
                    node.name,
                    self.to_input(node.items),
                    variable_id(self.session, node.item),
                    self._body(node.body),
                    output,
                    node.max_items,
                )
            case wire.BranchNode():
                cases = tuple(
                    CaseSpec(self._condition(case.when), self._body(case.body))
                    for case in node.cases
                )
                return BranchSpec(node.name, cases, self._body(node.otherwise), output)
            case wire.LoopNode():
                return LoopSpec(
                    node.name,
                    tuple(self._loop_variable(variable) for variable in node.variables),
                    self._body(node.body),
                    self._condition(node.until),
                    node.max_rounds,
                    output,
                )
        assert_never(node)

    def _body(self, body: wire.Body) -> BodySpec:
        nodes = tuple(self.to_spec(node) for node in body.nodes)
        return BodySpec(nodes, variable_id(self.session, body.result))

    def _condition(self, condition: wire.Condition) -> Condition:
        return Condition(
            self.to_input(condition.input),
            condition.op,
            condition.text,
            condition.ignore_case,
            condition.negate,
        )

    def _loop_variable(self, variable: wire.LoopVariable) -> LoopVariable:
        return LoopVariable(
            variable_id(self.session, variable.name),
            variable_id(self.session, variable.initial),
            variable_id(self.session, variable.next),
        )
