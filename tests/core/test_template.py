"""The template syntax of prompts, as clients write it (upstream could not read input/output)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.protocol import (
    InputSegment,
    OutputSegment,
    Sampling,
    TemplateError,
    TextSegment,
    parse_template,
)
from tests.core.hypothesis_settings import examples

Segments = tuple[TextSegment | InputSegment | OutputSegment, ...]


def text(content: str) -> TextSegment:
    return TextSegment(text=content)


def read(name: str) -> InputSegment:
    return InputSegment(variable=name)


def write(name: str) -> OutputSegment:
    return OutputSegment(variable=name)


#: Three outputs in one prompt: upstream generated the first one twice and then gave up.
SNAKE = "Game: {{input:task}}\nCode: {{output:code}}\nTest: {{output:test}}\nNote: {{output:note}}"

READ: list[tuple[str, str, Segments]] = [
    ("empty", "", ()),
    ("text only", "Hello.", (text("Hello."),)),
    ("white space is kept", "\n a \t", (text("\n a \t"),)),
    ("an input", "{{input:x}}", (read("x"),)),
    ("an output", "{{output:y}}", (write("y"),)),
    (
        "the paper's first function",
        "Write python code of {{input:task}}.\nCode: {{output:code}}",
        (text("Write python code of "), read("task"), text(".\nCode: "), write("code")),
    ),
    (
        "several outputs with text between",
        SNAKE,
        (
            text("Game: "), read("task"), text("\nCode: "), write("code"),
            text("\nTest: "), write("test"), text("\nNote: "), write("note"),
        ),
    ),
    ("neighbours have no text between", "{{input:a}}{{output:b}}", (read("a"), write("b"))),
    ("an input twice", "{{input:a}} {{input:a}}", (read("a"), text(" "), read("a"))),
    ("spaces inside the braces", "{{input : a }}", (read("a"),)),
    ("names with digits and marks", "{{input:1_a-B}}", (read("1_a-B"),)),
    ("the longest name", "{{input:" + "n" * 128 + "}}", (read("n" * 128),)),
    ("single braces are text", "{input:x}", (text("{input:x}"),)),
    ("JSON is text", '{"a": {"b": 1}}', (text('{"a": {"b": 1}}'),)),
    ("JSON with double braces is text", '{{"a": 1}}', (text('{{"a": 1}}'),)),
    ("a name alone is text", "{{name}}", (text("{{name}}"),)),
    ("open braces are text", "{{input:x", (text("{{input:x"),)),
    ("triple braces", "{{{input:x}}}", (text("{"), read("x"), text("}"))),
    ("a line break between the braces is text", "{\n{input:x}}", (text("{\n{input:x}}"),)),
]  # fmt: skip


def test_input_may_be_of_an_instance() -> None:
    (segment,) = parse_template("{{input:m:0:b:1:x-y}}")
    assert segment == InputSegment(variable="m:0:b:1:x-y")


@pytest.mark.parametrize(
    ("template", "expected"), [case[1:] for case in READ], ids=[case[0] for case in READ]
)
def test_template_is_read(template: str, expected: Segments) -> None:
    assert parse_template(template) == expected


REFUSED: list[tuple[str, str, str]] = [
    ("unknown kind", "{{var:x}}", "unknown_placeholder"),
    ("kind in capitals", "{{Input:x}}", "unknown_placeholder"),
    ("no name", "{{input:}}", "template_syntax"),
    ("name with a space", "{{input:a b}}", "template_syntax"),
    ("name with a dot", "{{input:a.b}}", "template_syntax"),
    ("name that begins with a dash", "{{output:-a}}", "template_syntax"),
    ("name too long", "{{input:" + "n" * 129 + "}}", "template_syntax"),
    ("name that is not ASCII", "{{input:é}}", "template_syntax"),
    ("name with a number sign", "{{output:a#0}}", "template_syntax"),
    ("output in an instance", "{{output:m:0:x}}", "template_syntax"),
    ("input in an instance, cut off", "{{input:m:0:}}", "template_syntax"),
    ("input that begins with a colon", "{{input::m}}", "template_syntax"),
    ("input far too long", "{{input:m:" + "n" * 1023 + "}}", "template_syntax"),
]


@pytest.mark.parametrize(
    ("template", "code"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_template_is_refused(template: str, code: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_template(template)
    assert caught.value.code == code


_NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,10}", fullmatch=True)
_PIECES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="{}"), min_size=1).map(text),
        _NAMES.map(read),
        _NAMES.map(write),
    )
)


@examples(100)
@given(_PIECES)
def test_what_is_written_is_read(pieces: list[TextSegment | InputSegment | OutputSegment]) -> None:
    template = ""
    expected: list[TextSegment | InputSegment | OutputSegment] = []
    for piece in pieces:
        if isinstance(piece, TextSegment):
            template += piece.text
            if expected and isinstance(expected[-1], TextSegment):
                expected[-1] = text(expected[-1].text + piece.text)
                continue
        else:
            kind = "input" if isinstance(piece, InputSegment) else "output"
            template += "{{" + kind + ":" + piece.variable + "}}"
        expected.append(piece)
    assert parse_template(template) == tuple(expected)


def test_template_of_many_open_braces_is_read_in_linear_time() -> None:
    template = "{{" * 50_000
    assert parse_template(template) == (text(template),)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("head", ["{{input:", "{{input:x", "{{input", "{{input: x"])
def test_long_white_space_in_half_a_placeholder_is_read_in_linear_time(head: str) -> None:
    template = head + " " * 3_000
    assert parse_template(template) == (text(template),)


@pytest.mark.timeout(5)
def test_template_of_many_half_placeholders_is_read_in_linear_time() -> None:
    template = "{{input:x " * 20_000
    assert parse_template(template) == (text(template),)


def test_temperature_zero_is_legal() -> None:
    assert Sampling(temperature=0).temperature == 0
