"""Random programs for properties, and two slow ways to know what must come of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from parrot_backend import closed_set
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
from parrot_backend.core.criteria import Criteria, CriteriaKind, ObjectiveClass
from parrot_backend.core.events import CallSpec, NodeSpec, TransformSpec
from parrot_backend.core.ids import VariableId, name_of
from parrot_backend.core.prompt import Input, Output, PartKind, PromptPart, Role, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import (
    JsonField,
    SplitList,
    Strip,
    TransformError,
    apply_transforms,
)
from tests.core.declared import Meaning, body_of, instance, made_by
from tests.helpers.builders import LATENCY, SESSION, var
from tests.helpers.core_driver import reply_text


@dataclass(frozen=True)
class Program:
    """Nodes in topological order, external variables, and what is wanted in which order."""

    nodes: tuple[NodeSpec, ...]
    externals: dict[str, str]
    wanted: dict[str, Criteria]

    @property
    def variables(self) -> list[str]:
        """Names of all variables, the external ones first."""
        return [*self.externals, *(name for node in self.nodes for name in outputs_of(node))]


def outputs_of(node: NodeSpec) -> list[str]:
    """Return the names of the variables that a node makes, in order."""
    return [name_of(variable) for variable in made_by(node)]


def inputs_of(node: NodeSpec) -> list[str]:
    """Return the names of the variables that a call or a transform reads."""
    assert isinstance(node, CallSpec | TransformSpec)
    return [name_of(s.variable) for s in node.segments if isinstance(s, Input)]


@st.composite
def programs(draw: st.DrawFn, max_nodes: int = 8) -> Program:
    """Draw a program of calls with one to three outputs, and transforms."""
    externals = {f"x{i}": draw(st.sampled_from(["", " v ", '{"a": "b"}'])) for i in range(2)}
    readable = list(externals)
    nodes: list[NodeSpec] = []
    for number in range(draw(st.integers(1, max_nodes))):
        node = _draw_node(draw, number, readable)
        nodes.append(node)
        readable += outputs_of(node)
    kinds = st.sampled_from(
        [
            Criteria(CriteriaKind.LATENCY),
            Criteria(CriteriaKind.LATENCY, deadline_s=9.0),
            Criteria(CriteriaKind.LATENCY, deadline_s=3.0),
            Criteria(CriteriaKind.THROUGHPUT),
            Criteria(CriteriaKind.UNSTATED),
            Criteria(CriteriaKind.UNSTATED, tpot_s=0.5),
        ]
    )
    wanted = draw(st.dictionaries(st.sampled_from(readable), kinds, max_size=5))
    return Program(tuple(nodes), externals, wanted)


@st.composite
def control_programs(draw: st.DrawFn, max_nodes: int = 5) -> Program:
    """Draw a program that has maps, branches and loops, too; they lie up to three deep."""
    items = st.sampled_from(["[]", '["a"]', '["a1", " b", "c"]', "a,b", "", "no"])
    externals = {f"x{i}": draw(items) for i in range(3)}
    readable = list(externals)
    nodes = _draw_nodes(draw, draw(st.integers(1, max_nodes)), readable, 0)
    wanted = draw(st.dictionaries(st.sampled_from(readable), st.just(LATENCY), max_size=2))
    return Program(tuple(nodes), externals, wanted)


def _draw_nodes(draw: st.DrawFn, count: int, readable: list[str], level: int) -> list[NodeSpec]:
    """Draw nodes and add what they make to what can be read.

    Names are of their level, so that bodies beside each other have the same.
    """
    nodes: list[NodeSpec] = []
    for number in range(count):
        is_control = level < 3 and draw(st.integers(0, 2)) == 0
        node: NodeSpec
        if is_control:
            node = _draw_control(draw, f"k{level}_{number}", readable, level)
        else:
            node = _draw_node(draw, number, readable, f"l{level}_" if level else "")
        nodes.append(node)
        readable += outputs_of(node)
    return nodes


def _draw_control(draw: st.DrawFn, name: str, readable: list[str], level: int) -> ControlSpec:
    output, parameter = var(f"{name}v"), f"{name}p"

    def body(*own: str) -> tuple[BodySpec, list[str]]:
        inner = [*readable, *own]
        nodes = _draw_nodes(draw, draw(st.integers(0, 2)), inner, level + 1)
        # The newest are likely.
        chosen = inner[-1 - draw(st.integers(0, len(inner) - 1)) // 2]
        return BodySpec(tuple(nodes), var(chosen)), inner

    def condition(names: list[str]) -> Condition:
        asked = Input(var(draw(st.sampled_from(names[-4:]))), (Strip(),))
        text = draw(st.sampled_from(["", "a", "1", "c2"]))
        op = draw(st.sampled_from(["contains", "contains", "starts_with", "is_empty"]))
        return Condition(asked, op, text, negate=draw(st.booleans()))  # type: ignore[arg-type]

    match draw(st.integers(0, 2)):
        case 0:
            source = var(draw(st.sampled_from(readable)))
            is_split = draw(st.integers(0, 3)) > 0
            items = Input(source, (SplitList(draw(st.sampled_from("a1c5"))),) if is_split else ())
            inner, _ = body(parameter)
            most = draw(st.sampled_from([2, 9, 9, 9]))
            return MapSpec(name, items, var(parameter), inner, output, most)
        case 1:
            cases = tuple(
                CaseSpec(condition(readable), body()[0]) for _ in range(draw(st.integers(1, 2)))
            )
            return BranchSpec(name, cases, body()[0], output)
    inner, seen = body(parameter, f"{parameter}q")
    variables = tuple(
        LoopVariable(
            var(own), var(draw(st.sampled_from(readable))), var(draw(st.sampled_from(seen[-4:])))
        )
        for own in (parameter, f"{parameter}q")
    )
    return LoopSpec(name, variables, inner, condition(seen), draw(st.integers(1, 3)), output)


def _draw_node(draw: st.DrawFn, number: int, readable: list[str], prefix: str = "") -> NodeSpec:
    names = draw(st.lists(st.sampled_from(readable), max_size=3))
    strips = draw(st.booleans())
    inputs = [Input(var(name), (Strip(),) if strips else ()) for name in names]
    if draw(st.integers(0, 3)) == 0:
        is_picky = draw(st.integers(0, 3)) == 0
        transforms = (JsonField("a"),) if is_picky else (Strip(),)
        segments: tuple[Text | Input, ...] = (*inputs, Text(f" t{number} "))
        return TransformSpec(f"t{number}", segments, transforms, var(f"{prefix}v{number}"))
    prompt = [Role("user")] if draw(st.booleans()) else []
    head = Text(f"call {number if strips else ''}")
    outputs: list[Output | Text] = []
    for step in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        output = var(f"{prefix}v{number}_{step}")
        outputs += [Output(output, Sampling(max_tokens=8)), Text(f" {step} ")]
    return CallSpec(f"c{number}", (*prompt, head, *inputs, *outputs))


# --- values --------------------------------------------------------------------------------------


def interpret(program: Program) -> dict[str, str | None]:
    """Return the value of every variable, or None where it must fail.

    Those of instances have their names in the graph; of a map that fails there are all instances.
    """
    values: dict[str, str | None] = dict(program.externals)
    _interpret(program.nodes, "", {}, values)
    return values


def _interpret(
    nodes: Iterable[NodeSpec], prefix: str, meaning: Meaning, values: dict[str, str | None]
) -> None:
    """Run nodes; ``meaning`` tells what names stand for in the instance that they are of."""
    for node in nodes:
        if isinstance(node, CallSpec):
            _interpret_call(node, meaning, values)
            continue
        if isinstance(node, TransformSpec):
            value = _transformed(node, meaning, values)
        else:
            value = _controlled(node, prefix + node.name, meaning, values)
        values[name_of(meaning.get(node.output, node.output))] = value


def _controlled(
    node: ControlSpec, name: str, meaning: Meaning, values: dict[str, str | None]
) -> str | None:
    def run(index: int) -> Meaning:
        body, inner = instance(node, SESSION, name, index, meaning)
        _interpret(body.nodes, f"{name}:{index}:", inner, values)
        return inner

    def read(variable: VariableId, inner: Meaning) -> str | None:
        return values[name_of(inner.get(variable, variable))]

    def holds(condition: Condition, inner: Meaning) -> bool | None:
        value = read(condition.input.variable, inner)
        if value is None:
            return None
        text = apply_transforms(value, condition.input.transforms)
        return closed_set.holds(condition.op, text, condition.text, negate=condition.negate)

    match node:
        case MapSpec():
            value = read(node.items.variable, meaning)
            items = None if value is None else _items(value, node)
            if items is None:
                return None
            results = []
            for index, item in enumerate(items):
                values[f"{name}:{index}:{name_of(node.item)}"] = item
                results.append(read(node.body.result, run(index)))
            made = [result for result in results if result is not None]
            return json.dumps(made, ensure_ascii=False) if len(made) == len(results) else None
        case BranchSpec():
            answers = [holds(case.when, meaning) for case in node.cases]
            if None in answers:
                return None
            chosen = answers.index(True) if True in answers else len(answers)
            return read(body_of(node, chosen).result, run(chosen))
        case LoopSpec():
            for index in range(node.max_rounds):
                inner = run(index)
                is_last = True if index + 1 == node.max_rounds else holds(node.until, inner)
                if is_last is None:
                    return None
                if is_last:
                    return read(node.body.result, inner)
    raise AssertionError("unreachable")


def _items(value: str, node: MapSpec) -> list[str] | None:
    try:
        items = json.loads(apply_transforms(value, node.items.transforms))
    except ValueError:
        return None
    return items if isinstance(items, list) and len(items) <= node.max_items else None


def _transformed(
    node: TransformSpec, meaning: Meaning, values: Mapping[str, str | None]
) -> str | None:
    parts = _parts(node.segments, meaning, values)
    if parts is None:
        return None
    try:
        return apply_transforms("".join(part.text for part in parts), node.transforms)
    except TransformError:
        return None


def _interpret_call(node: CallSpec, meaning: Meaning, values: dict[str, str | None]) -> None:
    before: list[Role | Text | Input] = []
    for segment in node.segments:
        if isinstance(segment, Output):
            parts = _parts(before, meaning, values)
            made = None if parts is None else reply_text(parts)
            values[name_of(meaning.get(segment.variable, segment.variable))] = made
            before.append(Input(segment.variable))
        else:
            before.append(segment)


def _parts(
    segments: Iterable[Role | Text | Input], meaning: Meaning, values: Mapping[str, str | None]
) -> list[PromptPart] | None:
    parts: list[PromptPart] = []
    for segment in segments:
        if isinstance(segment, Role):
            parts.append(PromptPart(PartKind.ROLE, segment.role))
        elif isinstance(segment, Text):
            parts.append(PromptPart(PartKind.CONSTANT, segment.text))
        else:
            value = values[name_of(meaning.get(segment.variable, segment.variable))]
            if value is None:
                return None
            text = apply_transforms(value, segment.transforms)
            parts.append(PromptPart(PartKind.VALUE, text))
    return parts


# --- objectives ----------------------------------------------------------------------------------

#: One step of a program: an output, whether a model makes it, and the variables it needs.
Step = tuple[str, bool, frozenset[str]]


def steps_of(program: Program) -> list[Step]:
    """Return one step per output; a later output of a call needs the earlier ones."""
    steps: list[Step] = []
    for node in program.nodes:
        assert isinstance(node, CallSpec | TransformSpec)
        own: list[str] = []
        before: list[str] = []
        for segment in node.segments:
            if isinstance(segment, Input):
                before.append(name_of(segment.variable))
            elif isinstance(segment, Output):
                own.append(name_of(segment.variable))
                steps.append((own[-1], True, frozenset([*before, *own[:-1]])))
        if isinstance(node, TransformSpec):
            steps.append((name_of(node.output), False, frozenset(before)))
    return steps


def expected_objectives(
    program: Program,
) -> dict[str, tuple[ObjectiveClass, frozenset[str], float | None]]:
    """Return class, task group and deadline of each request, by trying every path."""
    steps = {name: (is_request, needs) for name, is_request, needs in steps_of(program)}
    serial: set[str] = set()
    groups: list[set[str]] = []
    needed: dict[str, float | None] = {}
    for goal, criteria in program.wanted.items():
        lengths = _longest_paths(steps, goal)
        for name in lengths:
            known = [d for d in (needed.get(name), criteria.deadline_s) if d is not None]
            needed[name] = min(known, default=None)
        if criteria.is_latency_sensitive:
            for stage in set(lengths.values()):
                members = {n for n, s in lengths.items() if s == stage and steps[n][0]}
                if len(members) == 1:
                    serial |= members
                else:
                    groups.append(members)
    merged = _merged([group - serial for group in groups])
    result: dict[str, tuple[ObjectiveClass, frozenset[str], float | None]] = {}
    for name, deadline_s in needed.items():
        if not steps[name][0]:
            continue
        group = next((g for g in merged if name in g), frozenset())
        if name in serial or len(group) == 1:
            result[name] = ObjectiveClass.LATENCY, frozenset(), deadline_s
        elif group:
            result[name] = ObjectiveClass.TASK_GROUP, group, deadline_s
        else:
            result[name] = ObjectiveClass.THROUGHPUT, frozenset(), deadline_s
    return result


def _longest_paths(steps: Mapping[str, tuple[bool, frozenset[str]]], goal: str) -> dict[str, int]:
    """Return for each step that leads to the goal the most requests on a way after it."""
    longest: dict[str, int] = {}
    paths = [(goal, 0)] if goal in steps else []
    while paths:
        name, length = paths.pop()
        longest[name] = max(length, longest.get(name, 0))
        is_request, needs = steps[name]
        paths += [(need, length + is_request) for need in needs if need in steps]
    return longest


def _merged(groups: list[set[str]]) -> list[frozenset[str]]:
    merged: list[set[str]] = []
    for group in groups:
        touching = [m for m in merged if m & group]
        merged = [m for m in merged if not m & group]
        merged.append(group.union(*touching))
    return [frozenset(m) for m in merged if m]
