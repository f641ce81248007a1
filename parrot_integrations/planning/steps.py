"""A planned program: its steps as records, and as nodes of the wire. Pure.

Variables of a body have names that nothing else in the plan has, so that they need no scopes here;
an instance of a body gives them a prefix, as the server does (see ``protocol.nodes``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from parrot_backend.protocol import (
    Body,
    BranchNode,
    CallNode,
    Case,
    Condition,
    InputSegment,
    LoopNode,
    LoopVariable,
    MapNode,
    TransformNode,
    WireNode,
)
from parrot_integrations.planning.calls import ModelCall, Segments


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call of a model.

    Attributes:
        name: Of the node.
        call: Its frame; the texts in it are void.
        contents: What each text is made of.
        output: The variable it makes.
        label: What people call it.
        stage: Which part of the program it is.
    """

    name: str
    call: ModelCall
    contents: tuple[Segments, ...]
    output: str
    label: str
    stage: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The variables it reads."""
        return _variables(segment for content in self.contents for segment in content)

    def to_node(self) -> CallNode:
        """Return it as it is sent."""
        return self.call.to_node(self.name, self.output, self.contents, self.stage)


@dataclass(frozen=True, slots=True)
class PlannedText:
    """A text put together on the server."""

    name: str
    content: Segments
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The variables it reads."""
        return _variables(self.content)

    def to_node(self) -> TransformNode:
        """Return it as it is sent."""
        return TransformNode(name=self.name, content=self.content, output=self.output)


@dataclass(frozen=True, slots=True)
class PlannedBody:
    """A sub-graph."""

    steps: tuple[Step, ...]
    result: str

    def to_body(self) -> Body:
        """Return it as it is sent."""
        return Body(nodes=tuple(step.to_node() for step in self.steps), result=self.result)


@dataclass(frozen=True, slots=True)
class PlannedMap:
    """A body for each item of a list."""

    name: str
    items: InputSegment
    item: str
    body: PlannedBody
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """What decides how many instances there are."""
        return (self.items.variable,)

    def to_node(self) -> MapNode:
        """Return it as it is sent."""
        return MapNode(
            name=self.name,
            items=self.items,
            item=self.item,
            body=self.body.to_body(),
            output=self.output,
        )


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """One way to go on."""

    when: Condition
    body: PlannedBody


@dataclass(frozen=True, slots=True)
class PlannedBranch:
    """The body of the first case whose condition holds."""

    name: str
    cases: tuple[PlannedCase, ...]
    otherwise: PlannedBody
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """What decides which way to go."""
        return _variables(case.when.input for case in self.cases)

    def to_node(self) -> BranchNode:
        """Return it as it is sent."""
        return BranchNode(
            name=self.name,
            cases=tuple(Case(when=c.when, body=c.body.to_body()) for c in self.cases),
            otherwise=self.otherwise.to_body(),
            output=self.output,
        )


@dataclass(frozen=True, slots=True)
class PlannedLoop:
    """A body that runs until a condition on its variables holds."""

    name: str
    variables: tuple[LoopVariable, ...]
    body: PlannedBody
    until: Condition
    max_rounds: int
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the first round reads."""
        return tuple(dict.fromkeys(variable.initial for variable in self.variables))

    def to_node(self) -> LoopNode:
        """Return it as it is sent."""
        return LoopNode(
            name=self.name,
            variables=self.variables,
            body=self.body.to_body(),
            until=self.until,
            max_rounds=self.max_rounds,
            output=self.output,
        )


Step = PlannedCall | PlannedText | PlannedMap | PlannedBranch | PlannedLoop


def bodies_of(step: Step) -> tuple[PlannedBody, ...]:
    """Return the sub-graphs of a step."""
    match step:
        case PlannedMap() | PlannedLoop():
            return (step.body,)
        case PlannedBranch():
            return (*(case.body for case in step.cases), step.otherwise)
        case _:
            return ()


def all_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield steps and those of their bodies."""
    for step in steps:
        yield step
        for body in bodies_of(step):
            yield from all_steps(body.steps)


def to_nodes(steps: tuple[Step, ...]) -> tuple[WireNode, ...]:
    """Return steps as they are sent."""
    return tuple(step.to_node() for step in steps)


def _variables(segments: Iterator[object] | tuple[object, ...]) -> tuple[str, ...]:
    found = (s.variable for s in segments if isinstance(s, InputSegment))
    return tuple(dict.fromkeys(found))
