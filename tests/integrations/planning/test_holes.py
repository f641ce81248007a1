"""Late-bound values: what is read off a concrete text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.protocol import HtmlEscapeTransform, InputSegment, TextSegment
from parrot_integrations.planning.calls import Segments
from parrot_integrations.planning.holes import fill_holes
from parrot_integrations.planning.rules import rendered


def text(value: str) -> TextSegment:
    return TextSegment(text=value)


def hole(name: str, *transforms: HtmlEscapeTransform) -> InputSegment:
    return InputSegment(variable=name, transforms=transforms)


@pytest.mark.parametrize(
    ("content", "concrete", "known", "expected"),
    [
        ((text("Hi "), hole("h"), text("!")), "Hi you!", {}, {"h": "you"}),
        ((text("Hi "), hole("h"), text("!")), "Hi !", {}, {"h": ""}),
        ((text("Hi "), hole("h"), text("!")), "Hi you", {}, None),
        ((text("Hi "), hole("h")), "Ho you", {}, None),
        ((hole("h"),), "anything\nat all", {}, {"h": "anything\nat all"}),
        ((hole("h"), text("-"), hole("h")), "a-a", {}, {"h": "a"}),
        ((hole("h"), text("-"), hole("h")), "a-b", {}, None),
        ((hole("h"), text("-"), hole("g")), "a-b-c", {}, {"h": "a", "g": "b-c"}),
        ((hole("h"), hole("g")), "ab", {}, None),
        ((hole("k"), text(":"), hole("h")), "x:y", {"k": "x"}, {"h": "y"}),
        ((hole("k"), text(":"), hole("h")), "x:y", {"k": "z"}, None),
        ((hole("h"), text(" "), hole("k")), "a b c", {"k": "c"}, {"h": "a b"}),
        ((hole("h"), hole("k"), hole("g")), "a-b", {"k": "-"}, {"h": "a", "g": "b"}),
        ((hole("h"), hole("k"), hole("g")), "a-b", {"k": ""}, None),
        ((hole("h"), text(" "), hole("h"), text(";")), "a a;", {}, {"h": "a"}),
        ((text("<"), hole("h", HtmlEscapeTransform())), "<a &lt; b", {}, {"h": "a < b"}),
        ((text("<"), hole("h", HtmlEscapeTransform())), "<a < b", {}, None),
        ((), "", {}, {}),
        ((), "x", {}, None),
    ],
)
def test_values_in_holes(content: Segments, concrete, known, expected) -> None:
    assert fill_holes([content], [concrete], known) == expected


def test_what_one_text_tells_holds_for_the_next() -> None:
    contents: list[Segments] = [(text("a"), hole("h")), (hole("h"), text("b"))]
    assert fill_holes(contents, ["ax", "xb"], {}) == {"h": "x"}
    assert fill_holes(contents, ["ax", "yb"], {}) is None


@given(
    st.lists(
        st.tuples(st.sampled_from("hgk"), st.text("ab<-", min_size=1, max_size=3)), max_size=4
    ),
    st.fixed_dictionaries({name: st.text("ab<-", max_size=4) for name in "hgk"}),
)
def test_what_is_found_makes_the_text(
    pieces: list[tuple[str, str]], values: dict[str, str]
) -> None:
    content: Segments = tuple(s for name, after in pieces for s in (hole(name), text(after)))
    concrete = rendered(content, values)
    found = fill_holes([content], [concrete], {"k": values["k"]})
    if found is not None:
        assert rendered(content, {"k": values["k"], **found}) == concrete
