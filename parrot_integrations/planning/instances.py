"""Instances of bodies, named as the server names them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from parrot_backend.protocol import Condition, InputSegment
from parrot_integrations.planning.calls import Segments
from parrot_integrations.planning.steps import (
    PlannedBody,
    PlannedBranch,
    PlannedCall,
    PlannedCase,
    PlannedLoop,
    PlannedMap,
    PlannedText,
    Step,
)

#: From the names of a body to those of an instance, or of what a parameter is bound to.
Names = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Instance:
    """A body with names of its own.

    Attributes:
        steps: Its steps.
        names: From the body's names to the instance's.
        result: The variable that holds the result.
    """

    steps: tuple[Step, ...]
    names: Names
    result: str


def instance_name(node: str, index: int, local: str) -> str:
    """Return the server's name of a variable of an instance."""
    return f"{node}:{index}:{local}"


def instance_of(body: PlannedBody, node: str, index: int, bindings: Mapping[str, str]) -> Instance:
    """Return an instance of a body.

    Args:
        body: The body.
        node: Name of the control node.
        index: Which instance.
        bindings: Parameters and what they stand for.
    """
    own = {step.output: instance_name(node, index, step.output) for step in body.steps}
    names = {**bindings, **own}
    steps = tuple(
        replace(_renamed(step, names), name=instance_name(node, index, step.name))
        for step in body.steps
    )
    return Instance(steps, names, names.get(body.result, body.result))


def _renamed(step: Step, names: Names) -> Step:
    output = names.get(step.output, step.output)
    match step:
        case PlannedCall():
            contents = tuple(_segments(content, names) for content in step.contents)
            return replace(step, contents=contents, output=output)
        case PlannedText():
            return replace(step, content=_segments(step.content, names), output=output)
        case PlannedMap():
            items, body = _input(step.items, names), _body(step.body, names)
            return replace(step, items=items, body=body, output=output)
        case PlannedBranch():
            cases = tuple(
                PlannedCase(_condition(case.when, names), _body(case.body, names))
                for case in step.cases
            )
            otherwise = _body(step.otherwise, names)
            return replace(step, cases=cases, otherwise=otherwise, output=output)
        case PlannedLoop():
            variables = tuple(
                variable.model_copy(
                    update={"initial": names.get(variable.initial, variable.initial)}
                )
                for variable in step.variables
            )
            # What ends a round is a variable of the loop's own body.
            return replace(step, variables=variables, body=_body(step.body, names), output=output)


def _body(body: PlannedBody, names: Names) -> PlannedBody:
    steps = tuple(_renamed(step, names) for step in body.steps)
    return PlannedBody(steps, names.get(body.result, body.result))


def _condition(condition: Condition, names: Names) -> Condition:
    return condition.model_copy(update={"input": _input(condition.input, names)})


def _segments(segments: Segments, names: Names) -> Segments:
    return tuple(_input(s, names) if isinstance(s, InputSegment) else s for s in segments)


def _input(segment: InputSegment, names: Names) -> InputSegment:
    name = names.get(segment.variable)
    return segment if name is None else segment.model_copy(update={"variable": name})
