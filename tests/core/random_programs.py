"""Random programs for properties, and two slow ways to know what must come of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from parrot_backend.core.criteria import Criteria, CriteriaKind, ObjectiveClass
from parrot_backend.core.events import CallSpec, NodeSpec, TransformSpec
from parrot_backend.core.ids import name_of
from parrot_backend.core.prompt import Input, Output, PartKind, PromptPart, Role, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import JsonField, Strip, TransformError, apply_transforms
from tests.helpers.builders import var
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
    if isinstance(node, TransformSpec):
        return [name_of(node.output)]
    return [name_of(s.variable) for s in node.segments if isinstance(s, Output)]


def inputs_of(node: NodeSpec) -> list[str]:
    """Return the names of the variables that a node reads."""
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
        ]
    )
    wanted = draw(st.dictionaries(st.sampled_from(readable), kinds, max_size=5))
    return Program(tuple(nodes), externals, wanted)


def _draw_node(draw: st.DrawFn, number: int, readable: list[str]) -> NodeSpec:
    names = draw(st.lists(st.sampled_from(readable), max_size=3))
    strips = draw(st.booleans())
    inputs = [Input(var(name), (Strip(),) if strips else ()) for name in names]
    if draw(st.integers(0, 3)) == 0:
        is_picky = draw(st.integers(0, 3)) == 0
        transforms = (JsonField("a"),) if is_picky else (Strip(),)
        segments: tuple[Text | Input, ...] = (*inputs, Text(f" t{number} "))
        return TransformSpec(f"t{number}", segments, transforms, var(f"v{number}"))
    prompt = [Role("user")] if draw(st.booleans()) else []
    head = Text(f"call {number if strips else ''}")
    outputs: list[Output | Text] = []
    for step in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        outputs += [Output(var(f"v{number}_{step}"), Sampling(max_tokens=8)), Text(f" {step} ")]
    return CallSpec(f"c{number}", (*prompt, head, *inputs, *outputs))


# --- values --------------------------------------------------------------------------------------


def interpret(program: Program) -> dict[str, str | None]:
    """Return the value of every variable, or None where it must fail."""
    values: dict[str, str | None] = dict(program.externals)
    for node in program.nodes:
        if isinstance(node, TransformSpec):
            values[name_of(node.output)] = _transformed(node, values)
        else:
            _interpret_call(node, values)
    return values


def _transformed(node: TransformSpec, values: Mapping[str, str | None]) -> str | None:
    parts = _parts(node.segments, values)
    if parts is None:
        return None
    try:
        return apply_transforms("".join(part.text for part in parts), node.transforms)
    except TransformError:
        return None


def _interpret_call(node: CallSpec, values: dict[str, str | None]) -> None:
    before: list[Role | Text | Input] = []
    for segment in node.segments:
        if isinstance(segment, Output):
            parts = _parts(before, values)
            made = None if parts is None else reply_text(parts)
            values[name_of(segment.variable)] = made
            before.append(Input(segment.variable))
        else:
            before.append(segment)


def _parts(
    segments: Iterable[Role | Text | Input], values: Mapping[str, str | None]
) -> list[PromptPart] | None:
    parts: list[PromptPart] = []
    for segment in segments:
        if isinstance(segment, Role):
            parts.append(PromptPart(PartKind.ROLE, segment.role))
        elif isinstance(segment, Text):
            parts.append(PromptPart(PartKind.CONSTANT, segment.text))
        else:
            value = values[name_of(segment.variable)]
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
        if criteria.kind is CriteriaKind.LATENCY:
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
