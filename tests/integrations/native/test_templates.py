"""Templates: what a docstring becomes, and what is refused."""

from __future__ import annotations

import pytest

from parrot_backend.protocol import (
    CallNode,
    InputSegment,
    OutputSegment,
    Sampling,
    TextSegment,
)
from parrot_integrations import ProgramError
from parrot_integrations.templates import PromptTemplate, chat_prompt, raw_prompt


def text(text: str) -> TextSegment:
    return TextSegment(text=text)


def read(name: str) -> InputSegment:
    return InputSegment(variable=name)


def made(name: str) -> OutputSegment:
    return OutputSegment(variable=name)


def fill(template: PromptTemplate, **arguments: str) -> CallNode:
    return template.fill(
        "call",
        {name: text(value) for name, value in arguments.items()},
        {name: made(f"v-{name}") for name in template.outputs},
        sampling=Sampling(),
        model=None,
    )


@pytest.mark.parametrize(
    ("docstring", "segments"),
    [
        pytest.param("Say: {{output:a}}", (text("Say: "), made("a")), id="text before an output"),
        pytest.param(
            "\n    Say\n      more:\n    {{output:a}}\n    ",
            (text("Say\n  more:\n"), made("a")),
            id="the docstring's own indentation is dropped",
        ),
        pytest.param(
            "Say: {{output:a}}  \n\n",
            (text("Say: "), made("a")),
            id="white space after the last output is dropped",
        ),
        pytest.param(
            "Say: {{output:a}}.",
            (text("Say: "), made("a"), text(".")),
            id="text after the last output is kept",
        ),
        pytest.param(
            "{{input:x}}{{input:x}} {{output:a}}",
            (read("x"), read("x"), text(" "), made("a")),
            id="an input may be read twice",
        ),
        pytest.param(
            'JSON {"a": {"b": 1}} {{output:a}}',
            (text('JSON {"a": {"b": 1}} '), made("a")),
            id="other braces are text",
        ),
    ],
)
def test_a_raw_prompt_is_cut_at_its_placeholders(
    docstring: str, segments: tuple[object, ...]
) -> None:
    assert raw_prompt(docstring).parts[0].segments == segments


@pytest.mark.parametrize(
    ("docstring", "code"),
    [
        ("Say {{input:x}}", "template_without_output"),
        ("Say {{inptu:x}} {{output:a}}", "unknown_placeholder"),
        ("Say {{input:x y}} {{output:a}}", "template_syntax"),
        ("Say {{output:a}} and {{output:a}}", "repeated_output"),
        ("Say {{input:a}} and {{output:a}}", "input_is_output"),
        ("  {{output:a}}", "empty_prompt"),
    ],
)
def test_a_wrong_template_is_refused(docstring: str, code: str) -> None:
    with pytest.raises(ProgramError) as caught:
        raw_prompt(docstring)
    assert caught.value.code == code


def test_a_chat_prompt_ends_the_users_message_before_the_first_output() -> None:
    node = fill(chat_prompt("Tell a joke about {{input:x}}.\nJoke: {{output:a}}"), x="cats")
    assert node.messages is not None
    assert [(m.role, m.content) for m in node.messages] == [
        ("user", (text("Tell a joke about "), text("cats"), text(".\nJoke:"))),
        ("assistant", (made("v-a"),)),
    ]


def test_later_outputs_stay_in_the_assistants_turn() -> None:
    node = fill(chat_prompt("Joke? {{output:a}} Why? {{output:b}}"))
    assert node.messages is not None
    assert node.messages[-1].content == (made("v-a"), text(" Why? "), made("v-b"))


def test_a_system_message_may_hold_inputs() -> None:
    node = fill(chat_prompt("Hi {{output:a}}", system="You are {{input:role}}."), role="kind")
    assert node.messages is not None
    assert node.messages[0].content == (text("You are "), text("kind"), text("."))


def test_a_system_message_cannot_hold_an_output() -> None:
    with pytest.raises(ProgramError, match="output_in_system"):
        chat_prompt("Hi {{output:a}}", system="You are {{output:b}}.")


def test_an_empty_argument_leaves_no_segment() -> None:
    node = fill(raw_prompt("Say {{input:x}}{{output:a}}"), x="")
    assert node.prompt == (text("Say "), made("v-a"))


def test_text_is_taken_literally_even_if_it_looks_like_a_placeholder() -> None:
    node = fill(raw_prompt("Say {{input:x}}{{output:a}}"), x="{{output:evil}}")
    assert node.prompt == (text("Say "), text("{{output:evil}}"), made("v-a"))
