"""Values in prompts, parts of values, and the order of messages: pure."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st
from metagpt.utils.common import CodeParser

from parrot_backend.protocol import (
    InputSegment,
    RegexGroupTransform,
    StripTransform,
    TextSegment,
)
from parrot_integrations.metagpt.ordering import shared_first
from parrot_integrations.metagpt.parsing import code_of
from parrot_integrations.metagpt.texts import MIN_CHARS, KnownTexts, Source
from parrot_integrations.planning.calls import ChatMessage

DESIGN = "design: two modules and a main loop"
CODE = "def main():\n    return 'a whole program'"


def known(**values: str) -> KnownTexts:
    texts = KnownTexts()
    for name, value in values.items():
        texts.add(value, Source(name))
    return texts


def outline(texts: KnownTexts, prompt: str) -> list[str]:
    """Return a prompt's parts: constant texts as they are, and variables as <name>."""
    return [
        part.text if isinstance(part, TextSegment) else f"<{part.variable}>"
        for part in texts.split(prompt)
    ]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("nothing known", ["nothing known"]),
        (DESIGN, ["<design>"]),
        (f"# {DESIGN}\n{CODE}!", ["# ", "<design>", "\n", "<code>", "!"]),
        (f"{CODE}{CODE}", ["<code>", "<code>"]),
        (DESIGN[:-1], [DESIGN[:-1]]),
    ],
)
def test_values_are_found(prompt: str, parts: list[str]) -> None:
    assert outline(known(design=DESIGN, code=CODE), prompt) == parts


def test_of_two_values_the_longer_is_meant() -> None:
    texts = known(old=CODE, new=f"# revised\n{CODE}\n# end")
    assert outline(texts, f"see\n# revised\n{CODE}\n# end") == ["see\n", "<new>"]
    assert outline(texts, f"see {CODE}") == ["see ", "<old>"]


def test_of_equal_values_the_newest_is_meant() -> None:
    assert outline(known(old=CODE, new=CODE), CODE) == ["<new>"]


def test_short_values_are_left_alone() -> None:
    assert outline(known(v="y" * (MIN_CHARS - 1)), "y" * (MIN_CHARS - 1)) == ["y" * (MIN_CHARS - 1)]


@pytest.mark.parametrize("value", [" " * 40, "\n" * 20 + "x" * (MIN_CHARS - 1) + "\t" * 20])
def test_white_space_makes_no_value_longer(value: str) -> None:
    assert outline(known(v=value), f"a{value}b") == [f"a{value}b"]


def test_stripped_values_are_found() -> None:
    texts = known(v=f"\n  {CODE}\n")
    assert texts.split(f"a\n  {CODE}\nb")[1] == InputSegment(variable="v")
    stripped = InputSegment(variable="v", transforms=(StripTransform(),))
    assert texts.split(f"a{CODE}b")[1] == stripped


@given(
    st.lists(st.text("ab \n", min_size=MIN_CHARS, max_size=24), max_size=5),
    st.lists(st.text("ab \n", max_size=6), min_size=6, max_size=6),
    st.lists(st.integers(0, 4), max_size=5),
)
def test_references_stand_for_what_was_there(
    values: list[str], between: list[str], order: list[int]
) -> None:
    texts = known(**{f"v{i}": value for i, value in enumerate(values)})
    used = [values[i] for i in order if i < len(values)]
    prompt = between[0] + "".join(v + b for v, b in zip(used, between[1:], strict=False))

    def text_of(part: TextSegment | InputSegment) -> str:
        if isinstance(part, TextSegment):
            return part.text
        value = values[int(part.variable[1:])]
        return value.strip() if part.transforms else value

    assert "".join(map(text_of, texts.split(prompt))) == prompt


FENCED = "Here it is:\n```python\nprint('hello')\n```\nEnjoy."


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        (FENCED, ""),
        (FENCED, "python"),
        ("```\nplain\n``` and ```python\nsecond\n```", "python"),
        ("```python\n\tindented\n\n```", "python"),
        ("```python  x = 1 ```", "python"),
    ],
)
def test_the_server_cuts_out_what_metagpt_does(text: str, lang: str) -> None:
    part = CodeParser.parse_code(block=None, text=text, lang=lang)
    found = code_of(text, part, lang)
    assert found is not None
    match = re2.search(found.pattern, text)
    assert match[found.group] == part


@pytest.mark.parametrize(
    ("text", "part", "lang"),
    [
        ("no fence", "no fence", "python"),
        ("```python\u00a0x = 1 ```", "x = 1 ", "python"),
        ("```c++\nint i;```", "int i;", "c++"),
        (FENCED, "something else", "python"),
    ],
)
def test_parts_that_the_server_would_not_find(text: str, part: str, lang: str) -> None:
    assert code_of(text, part, lang) is None


def test_parts_of_parts() -> None:
    source = Source("v").then(RegexGroupTransform(pattern="(a)", group=1))
    texts = KnownTexts()
    texts.add(f"{CODE}\n", source)
    (found,) = texts.split(CODE)
    assert isinstance(found, InputSegment)
    assert [transform.op for transform in found.transforms] == ["regex_group", "strip"]


SYSTEM, USER = ChatMessage("system", "You are Bob."), ChatMessage("user", "the project")


@pytest.mark.parametrize(
    ("chat", "ordered"),
    [
        ([SYSTEM, USER], [ChatMessage("user", "the project\n\nYou are Bob.")]),
        ([USER], [USER]),
        ([SYSTEM], [SYSTEM]),
        (
            [SYSTEM, USER, ChatMessage("assistant", "yes"), ChatMessage("user", "go")],
            [USER, ChatMessage("assistant", "yes"), ChatMessage("user", "go\n\nYou are Bob.")],
        ),
    ],
)
def test_what_is_shared_comes_first(chat: list[ChatMessage], ordered: list[ChatMessage]) -> None:
    assert list(shared_first(chat)) == ordered
