"""Markers: what may be done to a symbolic text, what is noticed, and that nobody can forge one."""

from __future__ import annotations

import html
import json

import pytest

from parrot_backend.protocol import (
    HtmlEscapeTransform,
    HtmlUnescapeTransform,
    InputSegment,
    StripTransform,
    TextSegment,
)
from parrot_integrations.planning.rules import transformed
from parrot_integrations.planning.symbols import CannotPlan, Markers, Symbol, SymbolicText

AWKWARD = "\n <&\"'> &amp;lt; {x} %s \ue000\ue001 \x00\x1f é \u2003"


@pytest.fixture
def markers() -> Markers:
    return Markers()


def test_formatting_and_joining_place_the_value(markers: Markers) -> None:
    a, b = markers.mark(Symbol("a")), markers.mark(Symbol("b"))
    text = f"1 {a} 2" + "; ".join([b, "three", a])
    assert markers.segments(text) == (
        TextSegment(text="1 "),
        InputSegment(variable="a"),
        TextSegment(text=" 2"),
        InputSegment(variable="b"),
        TextSegment(text="; three; "),
        InputSegment(variable="a"),
    )


@pytest.mark.parametrize(
    "look",
    [
        len,
        bool,
        list,
        repr,
        lambda text: text == "x",
        lambda text: "x" in text,
        lambda text: text[0],
        lambda text: text.strip(),
        lambda text: text.split(),
        lambda text: text.upper(),
        lambda text: text.replace("a", "b"),
        lambda text: text.replace("<", "&lt;", 1),
        lambda text: f"{text:>10}",
        lambda text: f"{text!r}",
        lambda text: "{:10s}".format(text),  # noqa: UP032 - another way than above
        lambda text: text * 2,
        lambda text: text < "b",
        lambda text: text.encode(),
    ],
)
def test_looking_into_a_value_is_refused(markers: Markers, look) -> None:
    with pytest.raises(CannotPlan):
        look(markers.mark(Symbol("a")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (str, ()),
        (html.escape, (HtmlEscapeTransform(),)),
        (html.unescape, (HtmlUnescapeTransform(),)),
        (
            lambda text: html.escape(text, quote=False).replace('"', "&quot;"),
            (HtmlEscapeTransform(single_quote="'"),),
        ),
        (
            lambda text: html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
            (HtmlEscapeTransform(double_quote="&#34;", single_quote="&#39;"),),
        ),
        (lambda text: html.unescape(html.unescape(text)), (HtmlUnescapeTransform(),) * 2),
        (str.strip, (StripTransform(),)),
        (str.lstrip, (StripTransform(side="left"),)),
        (str.rstrip, (StripTransform(side="right"),)),
        (
            lambda text: html.escape(text.rstrip()),
            (StripTransform(side="right"), HtmlEscapeTransform()),
        ),
    ],
)
def test_a_change_that_the_server_knows_becomes_a_transform(markers, change, expected) -> None:
    marker = str.__str__(markers.mark(Symbol("a")))
    (segment,) = markers.segments(change(marker))
    assert segment.transforms == expected
    assert transformed(AWKWARD, segment.transforms) == change(AWKWARD)


def test_a_marker_within_a_text_is_not_stripped(markers: Markers) -> None:
    first, second = markers.mark(Symbol("a")), markers.mark(Symbol("b"))
    assert markers.segments(f" {first}{second}.\n".strip()) == (
        InputSegment(variable="a", transforms=(StripTransform(side="left"),)),
        InputSegment(variable="b"),
        TextSegment(text="."),
    )


def test_a_marker_may_be_escaped_and_stays_a_marker(markers: Markers) -> None:
    escaped = html.escape(html.escape(markers.mark(Symbol("a"))))
    assert isinstance(escaped, SymbolicText)
    with pytest.raises(CannotPlan):
        bool(escaped)
    assert markers.segments(html.unescape(str.__str__(escaped))) == (
        InputSegment(variable="a", transforms=(HtmlEscapeTransform(),)),
    )


@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        json.dumps,
        lambda text: text.replace("\n", " "),
        lambda text: text[:20],
        lambda text: text[5:],
        lambda text: text.replace("<", ""),
        lambda text: text.encode("ascii", "ignore").decode(),
    ],
)
def test_any_other_change_is_noticed(markers: Markers, spoil) -> None:
    with pytest.raises(CannotPlan):
        markers.segments(spoil(str.__str__(markers.mark(Symbol("a")))))


def test_transforms_come_in_order(markers: Markers) -> None:
    marker = str.__str__(markers.mark(Symbol("a").then(StripTransform())))
    (segment,) = markers.segments(html.escape(marker))
    assert segment == InputSegment(
        variable="a", transforms=(StripTransform(), HtmlEscapeTransform())
    )


def test_a_list_has_no_place_in_a_text(markers: Markers) -> None:
    with pytest.raises(CannotPlan):
        markers.segments(str.__str__(markers.mark(Symbol("a", is_list=True))))


def test_a_marker_of_another_plan_is_just_text(markers: Markers) -> None:
    foreign = str.__str__(Markers().mark(Symbol("secret")))
    forged = "\ue000" + "0" * 32 + ":0:x\ue001"
    own = markers.mark(Symbol("a"))
    assert not markers.is_marked(foreign + forged)
    assert markers.segments(f"{foreign}{own}{forged}") == (
        TextSegment(text=foreign),
        InputSegment(variable="a"),
        TextSegment(text=forged),
    )
