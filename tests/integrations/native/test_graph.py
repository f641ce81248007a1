"""The recorder: names, and what is handed over when."""

from __future__ import annotations

import pytest

from parrot_backend.protocol import (
    CallNode,
    InputSegment,
    OutputSegment,
    Sampling,
    StripTransform,
    TextSegment,
    TransformNode,
    VariableDeclaration,
)
from parrot_integrations.graph import CallOptions, GraphDelta, GraphRecorder
from parrot_integrations.templates import raw_prompt

ASK = raw_prompt("Ask {{input:x}} {{output:a}}")


def call(recorder: GraphRecorder, hint: str = "f", x: str | None = None) -> str:
    argument = TextSegment(text="t") if x is None else InputSegment(variable=x)
    names = recorder.add_call(hint, ASK, {"x": argument}, CallOptions())
    return names["a"]


def taken(recorder: GraphRecorder) -> GraphDelta:
    delta = recorder.take()
    assert delta is not None
    return delta


@pytest.mark.parametrize(
    ("hints", "names"),
    [
        (["f", "f", "f"], ["f", "f-2", "f-3"]),
        (["f", "f-2", "f"], ["f", "f-2", "f-3"]),
        (["größe", "größe"], ["gr_e", "gr_e-2"]),
        (["-x"], ["x"]),
        (["a.b"], ["a_b"]),
        (["日"], ["_"]),
    ],
)
def test_names_are_valid_and_unique(hints: list[str], names: list[str]) -> None:
    recorder = GraphRecorder()
    assert [recorder.add_external(hint, None) for hint in hints] == names


def test_a_very_long_name_is_cut_to_what_the_wire_takes() -> None:
    recorder = GraphRecorder()
    recorder.add_external("x" * 500, "")
    recorder.add_external("x" * 500, "")
    assert len(taken(recorder).variables[1].name) <= 128


def test_an_output_is_named_after_its_function_and_placeholder() -> None:
    assert call(GraphRecorder(), "WriteCode") == "WriteCode-a"


def test_a_call_becomes_a_node_with_its_names_filled_in() -> None:
    recorder = GraphRecorder()
    task = recorder.add_external("task", "snake")
    call(recorder, "f", task)
    assert taken(recorder).nodes == (
        CallNode(
            name="f",
            prompt=(
                TextSegment(text="Ask "),
                InputSegment(variable="task"),
                TextSegment(text=" "),
                OutputSegment(variable="f-a"),
            ),
        ),
    )


def test_sampling_of_one_output_goes_with_its_segment() -> None:
    recorder = GraphRecorder()
    greedy = CallOptions(sampling_of_output={"a": Sampling(temperature=0)})
    recorder.add_call(
        "f",
        ASK,
        {"x": TextSegment(text="t")},
        greedy,
    )
    node = taken(recorder).nodes[0]
    assert isinstance(node, CallNode)
    assert node.prompt is not None
    assert node.prompt[-1] == OutputSegment(variable="f-a", sampling=Sampling(temperature=0))


def test_a_transform_becomes_a_node() -> None:
    recorder = GraphRecorder()
    recorder.add_transform("clean", (InputSegment(variable="x"),), (StripTransform(),))
    assert taken(recorder).nodes == (
        TransformNode(
            name="clean",
            content=(InputSegment(variable="x"),),
            transforms=(StripTransform(),),
            output="clean",
        ),
    )


def test_leaves_are_the_outputs_that_nothing_reads() -> None:
    recorder = GraphRecorder()
    first = call(recorder, "f")
    call(recorder, "g", first)
    call(recorder, "h")
    assert taken(recorder).leaves == ("g-a", "h-a")


def test_the_inputs_of_a_delta_include_those_of_earlier_ones() -> None:
    recorder = GraphRecorder()
    first = call(recorder, "f")
    taken(recorder)
    call(recorder, "g", first)
    assert taken(recorder).inputs == {"f-a"}


def test_everything_is_handed_over_once() -> None:
    recorder = GraphRecorder()
    call(recorder, "f")
    taken(recorder)
    assert recorder.take() is None


def test_an_external_set_before_it_is_taken_is_declared_with_its_value() -> None:
    recorder = GraphRecorder()
    name = recorder.add_external("x", None)
    assert recorder.set_external(name, "v")
    assert taken(recorder).variables == (VariableDeclaration(name="x", value="v"),)


def test_an_external_cannot_be_set_here_after_it_was_taken() -> None:
    recorder = GraphRecorder()
    name = recorder.add_external("x", None)
    taken(recorder)
    assert not recorder.set_external(name, "v")
