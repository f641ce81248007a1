"""What the scripted engine makes up: JSON for schemas, calls of tools, forms."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from parrot_backend.core.chat import ChatOptions, NamedTool, ResponseFormat, Tool
from parrot_backend.core.prompt import PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.scripted_chat import FormatError, make_chat_reply
from parrot_backend.engines.scripted_json import SchemaError, make_example
from tests.contract.driver import constant, role

LOOK = Tool("look", "", '{"properties": {"where": {"enum": ["sea"]}}}')
WAIT = Tool("wait", "", "{}")


def make(schema: Any) -> Any:
    words = (f"word{number}" for number in itertools.count(10))
    return make_example(schema, lambda: next(words))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "word10"),
        ({"type": "string", "maxLength": 2}, "wo"),
        ({"type": "string", "minLength": 8}, "word10word11"),
        ({"type": "integer"}, 6),
        ({"type": "integer", "maximum": 3}, 3),
        ({"type": "number", "minimum": 100}, 100),
        ({"type": "integer", "exclusiveMinimum": 6}, 7),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["integer", "null"]}, 6),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": {"x": 1}}, {"x": 1}),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 6),
        ({"type": "array", "items": {"type": "integer"}}, [6]),
        ({"type": "array", "items": True, "minItems": 2}, ["word10", "word11"]),
        ({"type": "array", "maxItems": 0}, []),
        ({"properties": {"a": {}, "b": {"type": "integer"}}}, {"a": "word10", "b": 6}),
        ({"type": "object", "required": ["a"]}, {"a": "word10"}),
        (
            {"properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"const": 3}}},
            {"n": 3},
        ),
        (
            {
                "allOf": [
                    {"properties": {"a": {"const": 1}}},
                    {"properties": {"b": {"const": 2}}},
                ]
            },
            {"a": 1, "b": 2},
        ),
    ],
)
def test_examples(schema: Any, expected: Any):
    assert make(schema) == expected


def test_a_recursive_schema_comes_to_an_end():
    tree = {
        "$defs": {
            "node": {
                "properties": {"leaf": {"const": 1}, "more": {"$ref": "#/$defs/node"}},
                "required": ["leaf"],
            }
        },
        "$ref": "#/$defs/node",
    }

    assert json.dumps(make(tree)).count("leaf") > 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"enum": []},
        {"$ref": "#/$defs/missing"},
        "text",
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_what_is_no_schema(schema: Any):
    with pytest.raises(SchemaError):
        make(schema)


def reply_to(*parts: PromptPart, chat: ChatOptions, **sampling: Any) -> Any:
    return make_chat_reply(parts, chat, Sampling(**sampling), 100)


@pytest.mark.parametrize(
    ("choice", "question", "called"),
    [
        ("required", "hi", "look"),
        (NamedTool("wait"), "hi", "wait"),
        ("none", "look(", None),
        ("auto", "hi", None),
        ("auto", "please wait()", "wait"),
        ("auto", "look( and wait(", "look"),
        ("auto", "look", None),
    ],
)
def test_when_a_tool_is_called(choice: Any, question: str, called: str | None):
    chat = ChatOptions((LOOK, WAIT), choice)
    reply = reply_to(role("user"), constant(question), chat=chat)

    assert [call.name for call in reply.details.tool_calls] == ([called] if called else [])
    assert bool(reply.pieces) == (called is None)
    assert reply.finish_reason == ("tool_calls" if called else "stop")


def test_a_question_that_a_tool_has_answered_calls_none():
    chat = ChatOptions((LOOK,))
    asked = (role("user"), constant("look("))

    assert reply_to(*asked, role("tool"), constant("sea"), chat=chat).details.tool_calls == ()
    again = reply_to(*asked, role("tool"), constant("sea"), *asked, chat=chat)
    assert again.details.tool_calls


def test_the_same_question_gives_the_same_call():
    chat = ChatOptions((LOOK,), "required")
    first, again = (reply_to(role("user"), constant("x"), chat=chat) for _ in range(2))
    other = reply_to(role("user"), constant("y"), chat=chat)

    assert first == again
    assert first.details.tool_calls[0].id != other.details.tool_calls[0].id


def test_a_cut_call_says_so():
    reply = make_chat_reply(
        [role("user"), constant("x")], ChatOptions((LOOK,), "required"), Sampling(), 1
    )

    assert reply.finish_reason == "length"
    assert reply.num_tokens == 1


@pytest.mark.parametrize("wanted", [("regex", "[a-z]+"), ("grammar", 'root ::= "a"')])
def test_forms_that_it_cannot_make(wanted: Any):
    with pytest.raises(FormatError, match=wanted[0]):
        reply_to(constant("x"), chat=ChatOptions(), response_format=ResponseFormat(*wanted))
