"""Variables: constants, externals, outputs, and texts made of them on the server."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import parrot_integrations as P
from parrot_backend.protocol import WireCriteria
from tests.helpers.fake_parrot import FakeParrot


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


def wanted(fake: FakeParrot, submit: int = -1) -> dict[str, WireCriteria | None]:
    return {output.variable: output.criteria for output in fake.submits[submit].outputs}


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.002)


# --- variables --------------------------------------------------------------------------------


def test_a_constant_is_its_own_value(fake: FakeParrot, program: P.Program) -> None:
    assert P.SemanticVariable("v").get() == "v"


def test_a_constant_used_twice_is_declared_once(fake: FakeParrot, program: P.Program) -> None:
    task = P.SemanticVariable("snake", name="task")
    P.get_all([Ask(task), Ask(task)])
    assert [variable.name for variable in fake.submits[0].variables] == ["task"]


def test_a_variable_holds_text_only() -> None:
    with pytest.raises(P.ProgramError, match="invalid_argument"):
        P.SemanticVariable(5)  # type: ignore[arg-type]


def test_an_external_set_before_the_get_is_sent_with_its_value(
    fake: FakeParrot, program: P.Program
) -> None:
    late = P.SemanticVariable()
    answer = Ask(late)
    late.set("now")
    assert (answer.get(), fake.count("PUT")) == ("<Q: now A: >", 0)


def test_an_external_set_before_its_first_use_is_a_constant(program: P.Program) -> None:
    late = P.SemanticVariable()
    late.set("now")
    assert Ask(late).get() == "<Q: now A: >"


def test_an_external_set_after_it_was_sent_lets_the_graph_go_on(
    fake: FakeParrot, program: P.Program
) -> None:
    late = P.SemanticVariable()
    other, answer = Ask("other"), Ask(late)
    other.get()
    late.set("now")
    assert (answer.get(), fake.count("PUT")) == ("<Q: now A: >", 1)


@pytest.mark.parametrize("is_sent", [False, True])
def test_an_external_can_be_set_once(is_sent: bool, program: P.Program) -> None:
    late = P.SemanticVariable()
    answer = Ask(late)
    late.set("now")
    if is_sent:
        answer.get()
    with pytest.raises(P.ProgramError, match="variable_already_set"):
        late.set("again")


def test_an_output_cannot_be_set(program: P.Program) -> None:
    with pytest.raises(P.ProgramError, match="variable_has_producer"):
        Ask("one").set("mine")


def test_ids_are_known_once_the_server_has_the_variable(program: P.Program) -> None:
    answer = Ask("one")
    before = answer.id
    answer.get()
    assert (before, answer.id) == (None, "s1.Ask-answer")


def test_usage_is_known_once_the_value_is(program: P.Program) -> None:
    answer = Ask("one")
    answer.get()
    assert answer.usage == P.Usage(prompt_tokens=1, completion_tokens=2, cached_tokens=0)


def test_a_variable_in_an_f_string_is_refused(program: P.Program) -> None:
    with pytest.raises(P.ProgramError, match="variable_in_text"):
        f"{Ask('one')}"


def test_the_repr_does_not_show_the_value() -> None:
    assert repr(P.SemanticVariable("secret", name="key")) == "<SemanticVariable key: ready>"


# --- transforms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        (lambda v: v.strip(), "<Q: x A: >|strip"),
        (lambda v: v.json("a.0"), "<Q: x A: >|json_field"),
        (lambda v: v.regex(r"\d+", group=0), "<Q: x A: >|regex_group"),
        (lambda v: v.regex("x").strip(), "<Q: x A: >|regex_group|strip"),
        (lambda v: P.join([v, v], " + "), "<Q: x A: > + <Q: x A: >"),
        (lambda v: P.join([v]), "<Q: x A: >"),
        (lambda v: P.format("a {{input:v}} b {{input:c}}", v=v, c="d"), "a <Q: x A: > b d"),
    ],
)
def test_transforms_run_on_the_server(
    transform: Callable[[P.SemanticVariable], P.SemanticVariable],
    value: str,
    program: P.Program,
) -> None:
    assert transform(Ask("x")).get() == value


def test_a_transformed_value_can_be_read_by_a_call(program: P.Program) -> None:
    assert Ask(Ask("x").strip()).get() == "<Q: <Q: x A: >|strip A: >"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: P.join([]), "nothing_to_join"),
        (lambda: P.format("{{input:x}}"), "placeholder_without_parameter"),
        (lambda: P.format("text", x="y"), "unused_parameter"),
        (lambda: P.format("{{output:x}}"), "output_in_format"),
        (lambda: P.format("{{put:x}}"), "unknown_placeholder"),
    ],
)
def test_wrong_transforms_are_refused(make: Callable[[], object], code: str) -> None:
    with pytest.raises(P.ProgramError) as caught:
        make()
    assert caught.value.code == code
