"""Segments to parts: whole prompts, what is known of them, and placeholders for the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.ids import VariableId
from parrot_backend.core.prompt import (
    InPlace,
    PartKind,
    PromptPart,
    PromptSegment,
    Role,
    Text,
)
from parrot_backend.core.resolution import (
    IN_PLACE_PLACEHOLDER,
    PLACEHOLDER,
    resolve,
    resolve_leading,
    with_placeholders,
)
from parrot_backend.core.transforms import JsonField, Strip, TransformError
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.errors import Failure
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import read, var


def role(name: str) -> PromptPart:
    return PromptPart(PartKind.ROLE, name)


def const(text: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, text)


def value(text: str, token_ids: tuple[int, ...] | None = None) -> PromptPart:
    return PromptPart(PartKind.VALUE, text, token_ids)


def ready(name: str, text: str, token_ids: tuple[int, ...] | None = None) -> Variable:
    return Variable(var(name), state=VariableState.READY, value=text, token_ids=token_ids)


FAILED = Variable(
    var("bad"), state=VariableState.FAILED, failure=Failure("code", "message", "bad", ("bad",))
)
VARIABLES: dict[VariableId, Variable] = {
    v.id: v
    for v in (
        ready("x", " padded "),
        ready("made", "text", (1, 2)),
        Variable(var("later")),
        Variable(var("soon"), state=VariableState.GENERATING, partial=["half"]),
        FAILED,
    )
}
X, LATER, SOON, MADE = read("x"), read("later"), read("soon"), InPlace(var("made"))


@pytest.mark.parametrize(
    ("segment", "part"),
    [
        (Role("user"), role("user")),
        (Text("t"), const("t")),
        (X, value(" padded ")),
        (read("x", Strip()), value("padded")),
        # Only where it was generated do the tokens of a text stand for it.
        (read("made"), value("text")),
        (MADE, value("text", (1, 2))),
    ],
)
def test_segment_becomes_a_part(segment: PromptSegment, part: PromptPart) -> None:
    assert resolve([segment], VARIABLES) == (part,)


def test_transform_that_cannot_do_what_it_shall_is_told() -> None:
    with pytest.raises(TransformError):
        resolve([read("x", JsonField("a"))], VARIABLES)


LEADING: list[tuple[list[PromptSegment], int, list[PromptPart]]] = [
    ([], 0, []),
    ([Text("a"), LATER, Text("b")], 0, [const("a")]),
    ([Text("a"), X, Text("b")], 0, [const("a"), value(" padded "), const("b")]),
    ([Text("a"), X, Text("b")], 2, [const("b")]),
    ([Text("a"), X, Text("b")], 3, []),
    ([LATER, Text("b")], 0, []),
    ([SOON, Text("b")], 0, []),
    ([read("bad"), Text("b")], 0, []),
    ([Role("user"), LATER], 0, [role("user")]),
    ([Text("a"), MADE, InPlace(var("later"))], 0, [const("a"), value("text", (1, 2))]),
    ([Text("a"), read("x", JsonField("a")), Text("b")], 0, [const("a")]),
]


@pytest.mark.parametrize(("segments", "start", "parts"), LEADING)
def test_parts_up_to_the_first_missing_value(
    segments: list[PromptSegment], start: int, parts: list[PromptPart]
) -> None:
    assert resolve_leading(segments, VARIABLES, start) == parts


def test_placeholders_stand_for_what_is_not_known() -> None:
    segments: list[PromptSegment] = [
        Text("a"),
        X,
        Role("user"),
        Text("b"),
        LATER,
        InPlace(var("later")),
    ]
    assert with_placeholders([const("a")], segments) == (
        const("a"),
        PLACEHOLDER,  # even though its value is there: it comes after what is to be computed
        role("user"),
        const("b"),
        PLACEHOLDER,
        IN_PLACE_PLACEHOLDER,  # spaces before it stay where they are
    )


_SEGMENTS = st.lists(st.sampled_from([Role("user"), Text("t"), X, LATER, MADE]), max_size=8)


@examples(100)
@given(_SEGMENTS, st.integers(0, 8))
def test_what_is_known_in_two_steps_is_what_is_known_at_once(
    segments: list[PromptSegment], cut: int
) -> None:
    at_once = resolve_leading(segments, VARIABLES, 0)
    first = at_once[:cut]
    assert first + resolve_leading(segments, VARIABLES, len(first)) == at_once


@examples(100)
@given(_SEGMENTS)
def test_known_parts_and_placeholders_are_a_whole_prompt(segments: list[PromptSegment]) -> None:
    known = resolve_leading(segments, VARIABLES, 0)
    whole = with_placeholders(known, segments)
    assert len(whole) == len(segments)
    assert list(whole[: len(known)]) == known
    if LATER not in segments:
        assert whole == resolve(segments, VARIABLES)
