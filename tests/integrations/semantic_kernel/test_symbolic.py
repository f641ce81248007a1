"""What may be done to stand-ins within templates, and what is noticed."""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from parrot_backend.protocol import HtmlEscapeTransform, InputSegment, StripTransform, TextSegment
from parrot_integrations.planning.symbols import CannotPlan, Markers, Symbol
from parrot_integrations.semantic_kernel.symbolic import TemplateCut, TemplateText, TracedResult


@pytest.fixture
def markers() -> Markers:
    return Markers()


@pytest.fixture
def text(markers: Markers) -> TemplateText:
    return TemplateText.of(markers.mark(Symbol("a")))


@pytest.fixture
def result(text: TemplateText) -> TracedResult:
    return TracedResult(lambda: text)


@pytest.mark.parametrize(
    "look",
    [
        bool,
        len,
        list,
        lambda value: value == "x",
        lambda value: value < "x",
        lambda value: "x" in value,
        lambda value: value[0],
        lambda value: value.upper(),
        lambda value: value.split(),
        lambda value: value.strip("x"),
        lambda value: value.replace("q", "r"),
        lambda value: f"{value:>9}",
        lambda value: bool(html.escape(value)),
        lambda value: len(value.strip()),
    ],
)
def test_looking_into_a_text_is_noticed_by_no_template(
    text: TemplateText, look: Callable[[Any], Any]
) -> None:
    def engine() -> None:
        with suppress(Exception):
            look(text)

    with pytest.raises(TemplateCut):
        engine()


def test_a_text_can_be_joined_escaped_and_stripped(markers: Markers, text: TemplateText) -> None:
    assert markers.segments(f"x{html.escape(text)}y{text.strip()}") == (
        TextSegment(text="x"),
        InputSegment(variable="a", transforms=(HtmlEscapeTransform(),)),
        TextSegment(text="y"),
        InputSegment(variable="a", transforms=(StripTransform(),)),
    )


@pytest.mark.parametrize("spoil", [repr, lambda text: str([text]), lambda text: f"{[text]}"])
def test_a_text_that_is_shown_is_spoiled(
    markers: Markers, text: TemplateText, spoil: Callable[[Any], str]
) -> None:
    with pytest.raises(CannotPlan, match="cut or rewritten"):
        markers.segments(spoil(text))


def test_a_result_is_its_text(markers: Markers, result: TracedResult) -> None:
    assert isinstance(str(result), TemplateText)
    assert markers.segments(f"{result}") == (InputSegment(variable="a"),)
    result.is_printed = True
    assert type(str(result)) is str


@pytest.mark.parametrize(
    "look",
    [
        repr,
        list,
        lambda value: value.value,
        lambda value: value.metadata,
        lambda value: value == "x",
        lambda value: hasattr(value, "value"),
        lambda value: getattr(value, "rendered_prompt", None),
    ],
)
def test_looking_into_a_result_is_noticed(result: TracedResult, look: Callable[[Any], Any]) -> None:
    with pytest.raises(TemplateCut):
        look(result)


def test_a_result_is_there_and_has_no_length(result: TracedResult) -> None:
    assert bool(result)
    assert not hasattr(result, "__html__")
    assert not hasattr(result, "__len__")


def test_a_text_that_nobody_reads_is_not_made() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("x")
        return "x"

    result = TracedResult(make)
    assert made == []
    assert (str(result), str(result), made) == ("x", "x", ["x"])
