"""``bind_tools`` and ``with_structured_output`` on a fake server."""

from __future__ import annotations

import json
from typing import Any, TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.tools import tool
from pydantic import BaseModel

from parrot_backend.protocol import (
    CallNode,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ToolCall,
)
from parrot_integrations.langchain import ChatParrot
from tests.helpers.fake_parrot import FakeParrot


class Point(BaseModel):
    """A point."""

    x: int
    y: int = 0


class PointDict(TypedDict):
    """A point."""

    x: int
    y: int


POINT = {"x": 1, "y": 2}
#: Values that stand for a point, and what they are parsed to.
SCHEMAS: list[tuple[Any, Any]] = [
    (Point, Point(x=1, y=2)),
    (PointDict, POINT),
    (Point.model_json_schema(), POINT),
]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def last_node(fake: FakeParrot) -> CallNode:
    (node,) = fake.submits[-1].nodes
    assert isinstance(node, CallNode)
    return node


def test_tools_are_bound_called_and_answered(chat: ChatParrot, fake: FakeParrot) -> None:
    fake.details = lambda node: (
        {"tool_calls": (ToolCall(id="c", name="add", arguments='{"a": 1, "b": 2}'),)}
        if node.messages is not None and len(node.messages) == 2
        else {}
    )
    model = chat.bind_tools([add], tool_choice="add", parallel_tool_calls=False, strict=True)
    asked = model.invoke("1 + 2?")
    node = last_node(fake)
    assert [tool.name for tool in node.tools] == ["add"]
    assert node.tool_choice == NamedTool(name="add")
    assert not node.parallel_tool_calls
    answer = add.invoke(asked.tool_calls[0])
    model.invoke(["1 + 2?", asked, answer])
    messages = last_node(fake).messages
    assert messages is not None
    assert [(m.role, m.tool_call_id) for m in messages[1:3]] == [("assistant", None), ("tool", "c")]
    assert messages[1].tool_calls[0].arguments == '{"a": 1, "b": 2}'


@pytest.mark.parametrize(("schema", "parsed"), SCHEMAS)
def test_a_json_schema_constrains_the_output(
    chat: ChatParrot, fake: FakeParrot, schema: Any, parsed: Any
) -> None:
    fake.generate = lambda _: json.dumps(POINT)
    model = chat.with_structured_output(schema)
    assert model.invoke("where") == parsed
    assert list(model.stream("where"))[-1] == parsed
    form = last_node(fake).sampling.response_format
    assert isinstance(form, JsonSchemaFormat)
    assert set(form.json_schema["properties"]) == {"x", "y"}


@pytest.mark.parametrize(("schema", "parsed"), SCHEMAS)
@pytest.mark.parametrize("strict", [None, True, False])
def test_function_calling_reads_the_arguments(
    chat: ChatParrot, fake: FakeParrot, schema: Any, parsed: Any, strict: bool | None
) -> None:
    fake.details = lambda node: {
        "tool_calls": (ToolCall(id="c", name=node.tools[0].name, arguments=json.dumps(POINT)),)
    }
    model = chat.with_structured_output(schema, method="function_calling", strict=strict)
    assert model.invoke("where") == parsed
    node = last_node(fake)
    assert node.tool_choice == NamedTool(name=node.tools[0].name)


def test_json_mode_asks_for_some_object(chat: ChatParrot, fake: FakeParrot) -> None:
    fake.generate = lambda _: json.dumps(POINT)
    assert chat.with_structured_output(method="json_mode").invoke("where") == POINT
    assert last_node(fake).sampling.response_format == JsonObjectFormat()
    parsed = chat.with_structured_output(Point, method="json_mode").invoke("where")
    assert parsed == Point(x=1, y=2)


def test_a_raw_reply_tells_what_went_wrong(chat: ChatParrot, fake: FakeParrot) -> None:
    model = chat.with_structured_output(Point, include_raw=True)
    fake.generate = lambda _: json.dumps(POINT)
    found = model.invoke("where")
    assert (found["parsed"], found["parsing_error"]) == (Point(x=1, y=2), None)
    fake.generate = lambda _: "nowhere"
    found = model.invoke("where")
    assert found["raw"].content == "nowhere"
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], OutputParserException)


def test_methods_that_are_not_known_are_errors(chat: ChatParrot) -> None:
    with pytest.raises(ValueError, match="method is one of json_schema, json_mode"):
        chat.with_structured_output(Point, method="xml")
    with pytest.raises(ValueError, match="json_schema needs a schema"):
        chat.with_structured_output()
