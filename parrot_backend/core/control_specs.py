"""Control flow as it is declared: nodes with bodies. Records only.

Within a body all names are ids of the session, ``s.name``. What a body makes, and its parameters,
get names of their own in each instance (``expansion.py``); all other names are what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from parrot_backend.closed_set import ConditionOp
from parrot_backend.core.ids import VariableId
from parrot_backend.core.prompt import Input

if TYPE_CHECKING:
    from parrot_backend.core.events import NodeSpec

ControlKind = Literal["map", "branch", "loop"]


@dataclass(frozen=True, slots=True)
class BodySpec:
    """A sub-graph, and which variable that it can see is its result."""

    nodes: tuple[NodeSpec, ...]
    result: VariableId


@dataclass(frozen=True, slots=True)
class Condition:
    """A question about a value; see :func:`closed_set.holds`."""

    input: Input
    op: ConditionOp
    text: str = ""
    ignore_case: bool = False
    negate: bool = False


@dataclass(frozen=True, slots=True)
class MapSpec:
    """The body once for each item of a list; ``item`` is its parameter."""

    name: str
    items: Input
    item: VariableId
    body: BodySpec
    output: VariableId
    max_items: int = 256


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """One way to go on, if the condition holds."""

    when: Condition
    body: BodySpec


@dataclass(frozen=True, slots=True)
class BranchSpec:
    """The body of the first case that holds, or else ``otherwise``."""

    name: str
    cases: tuple[CaseSpec, ...]
    otherwise: BodySpec
    output: VariableId


@dataclass(frozen=True, slots=True)
class LoopVariable:
    """A parameter that is ``initial`` in the first round, then ``next`` of the round before."""

    name: VariableId
    initial: VariableId
    next: VariableId


@dataclass(frozen=True, slots=True)
class LoopSpec:
    """The body until a condition on what it can see holds, or ``max_rounds`` are over."""

    name: str
    variables: tuple[LoopVariable, ...]
    body: BodySpec
    until: Condition
    max_rounds: int
    output: VariableId


ControlSpec = MapSpec | BranchSpec | LoopSpec


def kind_of(spec: ControlSpec) -> ControlKind:
    """Return the kind of a control node, as clients name it."""
    match spec:
        case MapSpec():
            return "map"
        case BranchSpec():
            return "branch"
        case LoopSpec():
            return "loop"
