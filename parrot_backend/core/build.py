"""From what is declared to nodes: requests and transforms, and their order.

A call becomes one request per output. Bodies of control nodes are built in the same way, first to
be checked (``bodies.py``), then once for each instance (``expansion.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from parrot_backend.core.events import CallSpec, NodeSpec, TransformSpec
from parrot_backend.core.ids import NodeId, SessionId, VariableId, name_of
from parrot_backend.core.nodes import Node, Request, TransformNode
from parrot_backend.core.prompt import InPlace, Input, Output, PromptSegment
from parrot_backend.core.transforms import check_transforms
from parrot_backend.errors import RequestError

#: Each output holds all that stands before it, so a call costs the square of its outputs.
MAX_OUTPUTS_PER_CALL = 128

#: Segments and edges cost time, too; these are some tenths of a second.
MAX_REFERENCES_PER_SUBMIT = 100_000


def build_nodes(spec: CallSpec | TransformSpec, session: SessionId, tenant: str) -> list[Node]:
    """Return the nodes of a call, in order of its outputs, or of a transform.

    Raises:
        RequestError: ``empty_prompt`` or ``invalid_transform``.
    """
    if isinstance(spec, TransformSpec):
        return [_transform(spec, session)]
    return list(_requests(spec, session, tenant))


def outputs_of(spec: NodeSpec) -> list[VariableId]:
    """Return the variables that a node makes."""
    if isinstance(spec, CallSpec):
        return [s.variable for s in spec.segments if isinstance(s, Output)]
    return [spec.output]


def segments_held(spec: CallSpec) -> int:
    """Return how many segments the requests of a call hold: each has all that is before it."""
    return sum(place for place, s in enumerate(spec.segments) if isinstance(s, Output))


def check_outputs(spec: NodeSpec) -> None:
    """Check that a call makes something, and not too much.

    Raises:
        RequestError: ``template_without_output`` or ``graph_too_large``.
    """
    outputs = len(outputs_of(spec))
    if not outputs:
        message = f"call {spec.name!r} generates nothing: add an output"
        raise RequestError("template_without_output", message)
    if outputs > MAX_OUTPUTS_PER_CALL:
        message = f"call {spec.name!r} has {outputs} outputs, {MAX_OUTPUTS_PER_CALL} are allowed"
        raise RequestError("graph_too_large", message, limit=MAX_OUTPUTS_PER_CALL)


def check_references(number: int) -> None:
    """Check that a submit may have so many segments and edges.

    Raises:
        RequestError: ``graph_too_large``.
    """
    if number > MAX_REFERENCES_PER_SUBMIT:
        raise RequestError(
            "graph_too_large",
            f"the calls hold {number} segments together, {MAX_REFERENCES_PER_SUBMIT} are allowed "
            "in one submit",
            limit=MAX_REFERENCES_PER_SUBMIT,
        )


def check_input(segment: Input) -> None:
    """Check the transforms of an input.

    Raises:
        RequestError: ``invalid_transform``.
    """
    check_transforms(segment.transforms)


def in_topological_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return nodes so that each stands after what it reads.

    Raises:
        RequestError: ``cycle_in_graph``.
    """
    if len(nodes) == 1 and nodes[0].output not in nodes[0].reads:
        return (nodes[0],)
    producer = {node.output: node.id for node in nodes}
    by_id = {node.id: node for node in nodes}
    sorter: TopologicalSorter[NodeId] = TopologicalSorter(
        {node.id: [producer[used] for used in node.reads if used in producer] for node in nodes}
    )
    try:
        return tuple(by_id[node] for node in sorter.static_order())
    except CycleError as exc:
        names = " -> ".join(call_name(node) for node in reversed(exc.args[1]))
        raise RequestError("cycle_in_graph", f"the calls wait for each other: {names}") from exc


def call_name(node: NodeId) -> str:
    """Return the name that the client gave a node or the call it is of."""
    return name_of(node).partition("#")[0]


def _transform(spec: TransformSpec, session: SessionId) -> TransformNode:
    check_transforms(spec.transforms)
    return TransformNode(
        id=NodeId(f"{session}.{spec.name}"),
        inputs=_inputs_of(spec.segments),
        output=spec.output,
        segments=spec.segments,
        transforms=spec.transforms,
    )


def _requests(spec: CallSpec, session: SessionId, tenant: str) -> Iterator[Request]:
    before: list[PromptSegment] = []
    num_outputs = 0
    for segment in spec.segments:
        if not isinstance(segment, Output):
            before.append(segment)
            continue
        if not before:
            raise RequestError("empty_prompt", f"call {spec.name!r} has no prompt")
        yield Request(
            id=NodeId(f"{session}.{spec.name}#{num_outputs}"),
            inputs=_inputs_of(before),
            output=segment.variable,
            session=session,
            tenant=tenant,
            model=spec.model,
            chat=spec.chat,
            stage=spec.stage,
            segments=tuple(before),
            sampling=segment.sampling,
        )
        before.append(InPlace(segment.variable))
        num_outputs += 1


def _inputs_of(segments: Iterable[PromptSegment]) -> tuple[VariableId, ...]:
    """Return the distinct variables read; check their transforms."""
    inputs: dict[VariableId, None] = {}
    for segment in segments:
        if isinstance(segment, Input):
            check_input(segment)
        if isinstance(segment, Input | InPlace):
            inputs[segment.variable] = None
    return tuple(inputs)
