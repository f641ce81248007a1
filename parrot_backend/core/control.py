"""Control nodes: what they wait for, which instances of their bodies come next, and their value.

A control node waits for its inputs like every node. When they are there, it says which instances
are *due*; once those are in the graph it is told the names they got, and waits for what of them
decides on the next step. When its ``results`` are known and there, it has its value.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from parrot_backend import closed_set
from parrot_backend.core.bodies import BodyPlan, ControlPlan
from parrot_backend.core.control_specs import BranchSpec, Condition, ControlKind, LoopSpec, MapSpec
from parrot_backend.core.ids import NodeId, VariableId
from parrot_backend.core.nodes import Node
from parrot_backend.core.transforms import MAX_VALUE_CHARS, TransformError, apply_transforms
from parrot_backend.core.variable import Variable
from parrot_backend.errors import RequestError

Variables = Mapping[VariableId, Variable]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a body that is to be made.

    Attributes:
        index: Position of the item, of the case, or of the round.
        body: What it is made of.
        parameters: What stands for which parameter.
        item: Of a map, the text of the item.
    """

    index: int
    body: BodyPlan
    parameters: Mapping[VariableId, VariableId] = field(default_factory=dict)
    item: str | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """What the names in a body mean in one instance.

    Attributes:
        own: Variables of the instance, and what stands for parameters.
        outer: The same of the instances around it.
    """

    own: Mapping[VariableId, VariableId]
    outer: Mapping[VariableId, VariableId]

    def __getitem__(self, name: VariableId) -> VariableId:
        return self.own.get(name) or self.outer.get(name, name)


#: An instance that has been made, and the names it got.
Made = tuple[Instance, Names]


@dataclass(slots=True, eq=False, kw_only=True)
class ControlNode(Node):  # no ABC: a dataclass with another metaclass cannot be compiled
    """What maps, branches and loops have in common.

    ``inputs`` is what it waits for now: first what decides on the instances, then their results.

    Attributes:
        plan: The checked declaration.
        tenant: Whose it is.
        level: How many bodies it lies in.
        names: What stands for the names of the bodies around it.
        captures: Variables that instances to come may read.
        results: The variables that its value is made of, once they are known.
        made: Variables of its instances, in topological order.
        num_placed: Nodes that were put before it.
    """

    plan: ControlPlan
    tenant: str
    level: int
    names: Mapping[VariableId, VariableId]
    captures: dict[VariableId, None] = field(default_factory=dict)
    results: tuple[VariableId, ...] | None = None
    made: list[VariableId] = field(default_factory=list)
    num_placed: int = 0

    def __post_init__(self) -> None:
        self.captures = dict.fromkeys(self._known_as(used) for used in self.plan.captures)

    @property
    @abstractmethod
    def kind(self) -> ControlKind:  # no ``ClassVar``: compiled dataclasses take it for a field
        """What it is, as clients name it."""

    @property
    def reads(self) -> Collection[VariableId]:
        """What it waits for, and what its instances may read."""
        return dict.fromkeys((*self.inputs, *self.captures))

    @property
    def steps(self) -> int:
        """Itself, and the longest path in a body until there are instances."""
        return 1 if self.ready_s is not None else 1 + self.plan.length

    @abstractmethod
    def due(self, variables: Variables) -> tuple[Instance, ...]:
        """Return the instances that are to be made, now that the inputs are there.

        Raises:
            TransformError: A value cannot be read as it shall.
            RequestError: ``too_many_items``.
        """

    @abstractmethod
    def follow(self, made: Sequence[Made]) -> None:
        """Go on to wait for what matters of the instances that were due."""

    def value(self, variables: Variables) -> str:
        """Return the value, now that the results are there.

        Raises:
            TransformError: It would be too long.
        """
        assert self.results is not None
        return value_of(variables[self.results[0]])

    def _known_as(self, name: VariableId) -> VariableId:
        return self.names.get(name, name)

    def _wait_for_results(self, results: tuple[VariableId, ...]) -> None:
        self.results, self.inputs = results, tuple(dict.fromkeys(results))
        self.captures = {}


@dataclass(slots=True, eq=False, kw_only=True)
class MapNode(ControlNode):
    """One instance for each item of a list."""

    @property
    def kind(self) -> ControlKind:
        """A map."""
        return "map"

    def due(self, variables: Variables) -> tuple[Instance, ...]:
        """Return one instance for each item."""
        spec = self.plan.spec
        assert isinstance(spec, MapSpec)
        value = value_of(variables[self._known_as(spec.items.variable)])
        items = _items(apply_transforms(value, spec.items.transforms))
        if len(items) > spec.max_items:
            raise RequestError(
                "too_many_items", f"the list has {len(items)} items, {spec.max_items} are allowed"
            )
        body = self.plan.bodies[0]
        return tuple(Instance(i, body, item=item) for i, item in enumerate(items))

    def follow(self, made: Sequence[Made]) -> None:
        """Wait for the results of all instances."""
        self._wait_for_results(tuple(names[instance.body.result] for instance, names in made))

    def value(self, variables: Variables) -> str:
        """Return the results as a list value."""
        assert self.results is not None
        texts = [value_of(variables[result]) for result in self.results]
        if sum(map(len, texts)) <= MAX_VALUE_CHARS:
            joined = closed_set.list_value(texts)
            if len(joined) <= MAX_VALUE_CHARS:
                return joined
        raise TransformError(f"the list would be longer than {MAX_VALUE_CHARS} characters")


@dataclass(slots=True, eq=False, kw_only=True)
class BranchNode(ControlNode):
    """One instance, of the body that the conditions choose."""

    @property
    def kind(self) -> ControlKind:
        """A branch."""
        return "branch"

    def due(self, variables: Variables) -> tuple[Instance, ...]:
        """Return the instance of the first case that holds, or of the other body."""
        spec = self.plan.spec
        assert isinstance(spec, BranchSpec)
        chosen = len(spec.cases)
        for index, case in enumerate(spec.cases):
            asked = self._known_as(case.when.input.variable)
            if _holds(case.when, value_of(variables[asked])):
                chosen = index
                break
        return (Instance(chosen, self.plan.bodies[chosen]),)

    def follow(self, made: Sequence[Made]) -> None:
        """Wait for the result of the chosen body."""
        ((instance, names),) = made
        self._wait_for_results((names[instance.body.result],))


@dataclass(slots=True, eq=False, kw_only=True)
class LoopNode(ControlNode):
    """One instance after the other; of the last that may be, only the result is waited for.

    Attributes:
        round: The round that runs.
        result: The result of this round.
        parameters: What the next round begins with.
    """

    round: int = -1
    result: VariableId | None = None
    parameters: dict[VariableId, VariableId] = field(default_factory=dict)

    @property
    def kind(self) -> ControlKind:
        """A loop."""
        return "loop"

    def due(self, variables: Variables) -> tuple[Instance, ...]:
        """Return the next round, if there is to be one."""
        spec, body = self.plan.spec, self.plan.bodies[0]
        assert isinstance(spec, LoopSpec)
        if self.round < 0:
            return (Instance(0, body, {v.name: self._known_as(v.initial) for v in spec.variables}),)
        if _holds(spec.until, value_of(variables[self.inputs[0]])):
            return ()
        return (Instance(self.round + 1, body, self.parameters),)

    def follow(self, made: Sequence[Made]) -> None:
        """Wait for what decides whether there is another round, or for the result."""
        if not made:
            assert self.result is not None
            self._wait_for_results((self.result,))
            return
        spec = self.plan.spec
        assert isinstance(spec, LoopSpec)
        ((instance, names),) = made
        self.round, self.result = instance.index, names[instance.body.result]
        if self.round + 1 == spec.max_rounds:
            self._wait_for_results((self.result,))
            return
        self.inputs = (names[spec.until.input.variable],)
        self.parameters = {v.name: names[v.next] for v in spec.variables}
        later = (self._known_as(used) for used in instance.body.reads)
        self.captures = dict.fromkeys((self.result, *self.parameters.values(), *later))


def make_control(
    plan: ControlPlan,
    node: NodeId,
    output: VariableId,
    tenant: str,
    level: int = 0,
    around: Names | None = None,
) -> ControlNode:
    """Return a control node; ``around`` says what the names of the bodies around it mean."""
    names: dict[VariableId, VariableId] = {}
    if around is not None:
        names = {used: around[used] for used in (*plan.inputs, *plan.captures)}
    made_by = {MapSpec: MapNode, BranchSpec: BranchNode, LoopSpec: LoopNode}[type(plan.spec)]
    return made_by(
        id=node,
        inputs=tuple(dict.fromkeys(names.get(used, used) for used in plan.inputs)),
        output=output,
        plan=plan,
        tenant=tenant,
        level=level,
        names=names,
    )


def value_of(variable: Variable) -> str:
    """Return the value of a variable that is ready."""
    assert variable.value is not None, f"{variable.id} is not ready"
    return variable.value


def _holds(condition: Condition, value: str) -> bool:
    return closed_set.holds(
        condition.op,
        apply_transforms(value, condition.input.transforms),
        condition.text,
        ignore_case=condition.ignore_case,
        negate=condition.negate,
    )


def _items(text: str) -> list[str]:
    try:
        items = closed_set.list_items(text)
        for item in items:
            item.encode()  # JSON can spell half a surrogate pair, which is not text
    except (ValueError, RecursionError) as exc:
        raise TransformError(f"items: {exc}") from exc
    return items
