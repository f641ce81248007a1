"""Semantic functions: checks at decoration, and what a call records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

import parrot_integrations as P
from parrot_backend.protocol import CallNode, InputSegment, OutputSegment, Sampling, TextSegment
from tests.helpers.fake_parrot import FakeParrot

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


@P.SemanticFunction
def Joke(topic: P.SemanticVariable):
    """A joke about {{input:topic}}: {{output:joke}} Why: {{output:why}}"""


def no_docstring(x): ...


def no_output(x):
    """Say {{input:x}}"""


def unknown_kind(x):
    """Say {{imput:x}} {{output:a}}"""


def no_such_parameter(x):
    """Say {{input:x}} {{input:y}} {{output:a}}"""


def unused(x, y):
    """Say {{input:x}} {{output:a}}"""


def repeated(x):
    """Say {{input:x}} {{output:a}} {{output:a}}"""


def output_named_as_parameter(x, a):
    """Say {{input:x}} {{output:a}}"""


def star(*x):
    """Say {{input:x}} {{output:a}}"""


def dashed(x):
    """Say {{input:x}} {{output:a-b}}"""


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (no_docstring, "no_docstring"),
        (no_output, "template_without_output"),
        (unknown_kind, "unknown_placeholder"),
        (no_such_parameter, "placeholder_without_parameter"),
        (unused, "unused_parameter"),
        (repeated, "repeated_output"),
        (output_named_as_parameter, "output_is_parameter"),
        (star, "unsupported_parameter"),
        (dashed, "invalid_output_name"),
    ],
)
def test_a_wrong_function_is_refused_at_decoration(
    function: Callable[..., object], code: str
) -> None:
    with pytest.raises(P.ProgramError) as caught:
        P.SemanticFunction(function)
    assert caught.value.code == code


def test_sampling_for_an_unknown_output_is_refused() -> None:
    with pytest.raises(P.ProgramError, match="unknown_output"):
        P.SemanticFunction(outputs={"b": P.Sampling()})(Ask.__wrapped__)


def test_a_function_keeps_its_name() -> None:
    assert Ask.__name__ == "Ask"


def submitted(fake: FakeParrot) -> CallNode:
    node = fake.submits[-1].nodes[-1]
    assert isinstance(node, CallNode)
    return node


def test_calling_sends_nothing(fake: FakeParrot, program: P.Program) -> None:
    Ask("why?")
    assert fake.log == []


def test_one_output_is_returned_as_a_variable(program: P.Program) -> None:
    assert isinstance(Ask("why?"), P.SemanticVariable)


def test_several_outputs_are_returned_by_name(fake: FakeParrot, program: P.Program) -> None:
    result = Joke("cats")
    assert result.why.get() == "<A joke about cats: <A joke about cats: > Why: >"


def test_several_outputs_can_be_unpacked(program: P.Program) -> None:
    joke, _why = Joke("cats")
    assert joke.get() == "<A joke about cats: >"


def test_a_str_for_a_semantic_parameter_becomes_a_variable(
    fake: FakeParrot, program: P.Program
) -> None:
    Ask("why?").get()
    assert submitted(fake).prompt == (
        TextSegment(text="Q: "),
        InputSegment(variable="Ask-question"),
        TextSegment(text=" A: "),
        OutputSegment(variable="Ask-answer"),
    )


def test_other_values_for_a_semantic_parameter_are_refused(program: P.Program) -> None:
    with pytest.raises(P.ProgramError, match="invalid_argument"):
        Ask(5)


def test_a_plain_parameter_becomes_constant_text(fake: FakeParrot, program: P.Program) -> None:
    @P.SemanticFunction
    def Count(limit: int, unit="apples"):
        """Count to {{input:limit}} {{input:unit}}: {{output:numbers}}"""

    Count(7).get()
    assert submitted(fake).prompt == (
        TextSegment(text="Count to "),
        TextSegment(text="7"),
        TextSegment(text=" "),
        TextSegment(text="apples"),
        TextSegment(text=": "),
        OutputSegment(variable="Count-numbers"),
    )


def test_a_variable_for_a_plain_parameter_stays_a_variable(program: P.Program) -> None:
    @P.SemanticFunction
    def Repeat(text):
        """Repeat {{input:text}}: {{output:again}}"""

    assert Repeat(Ask("why?")).get() == "<Repeat <Q: why? A: >: >"


def test_annotations_that_only_type_checkers_know_do_no_harm(program: P.Program) -> None:
    @P.SemanticFunction
    def Mixed(a: P.SemanticVariable, b: OnlyForTypeCheckers):
        """{{input:a}} {{input:b}} {{output:c}}"""

    with pytest.raises(P.ProgramError, match="invalid_argument"):
        Mixed(1, 2)


def test_arguments_that_do_not_fit_raise_as_in_python(program: P.Program) -> None:
    with pytest.raises(TypeError):
        Ask("why?", "what?")


def test_options_reach_the_call(fake: FakeParrot, program: P.Program) -> None:
    @P.SemanticFunction(
        model="big", sampling=P.Sampling(max_tokens=9), outputs={"b": P.Sampling(temperature=0)}
    )
    def Two(x: P.SemanticVariable):
        """{{input:x}} {{output:a}} {{output:b}}"""

    Two("x").a.get()
    node = submitted(fake)
    assert node.prompt is not None
    assert (node.model, node.sampling.max_tokens, node.prompt[-1]) == (
        "big",
        9,
        OutputSegment(variable="Two-b", sampling=Sampling(temperature=0)),
    )


def test_a_chat_function_sends_messages(fake: FakeParrot, program: P.Program) -> None:
    @P.SemanticFunction(system="Be kind.")
    def Chat(x: P.SemanticVariable):
        """{{input:x}}
        {{output:reply}}
        """

    Chat("hello").get()
    messages = submitted(fake).messages
    assert messages is not None
    assert [message.role for message in messages] == ["system", "user", "assistant"]
