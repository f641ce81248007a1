"""Transforms on known values, and back."""

from __future__ import annotations

from parrot_backend.protocol import HtmlEscapeTransform, HtmlUnescapeTransform, SplitLinesTransform
from parrot_integrations.planning.rules import untransformed


def test_a_text_is_turned_back_if_that_can_be_done() -> None:
    assert untransformed("a &amp; b", (HtmlEscapeTransform(),)) == "a & b"
    assert untransformed("a & b", (HtmlEscapeTransform(),)) is None
    assert untransformed("a", (SplitLinesTransform(),)) is None


def test_a_text_that_was_unescaped_had_no_entities_if_that_can_be() -> None:
    assert untransformed("a < b", (HtmlUnescapeTransform(),)) == "a < b"
    assert untransformed("a &lt; b", (HtmlUnescapeTransform(),)) == "a &amp;lt; b"


def test_an_entity_that_python_cannot_read_is_not_turned_back() -> None:
    assert untransformed(f"&#{'9' * 5_000};", (HtmlEscapeTransform(),)) is None
