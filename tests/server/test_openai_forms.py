"""Forms of outputs that cannot be followed: which parameter is named, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.scripted_server import scripted_server

BAD = {"type": "wrong"}
LONG = {"type": "string", "description": "x" * 70_000}
HELLO = [{"role": "user", "content": "Hello"}]


def tools(parameters: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "f", "parameters": parameters}
    return {
        "messages": HELLO,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
    }


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return {"response_format": form}


def response(**fields: Any) -> dict[str, Any]:
    return {"input": "Hello", **fields}


def text(schema: dict[str, Any]) -> dict[str, Any]:
    return {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}


FLAT = {"type": "function", "name": "f", "parameters": BAD}

#: Path and body, and the parameter and code that are told.
FORMS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "schema of a chat": (
        "chat/completions",
        {"messages": HELLO, **schema(BAD)},
        "response_format",
        "invalid_json_schema",
    ),
    "schema for vLLM": (
        "chat/completions",
        {"messages": HELLO, "structured_outputs": {"json": BAD}},
        "structured_outputs.json",
        "invalid_json_schema",
    ),
    "pattern": (
        "completions",
        {"prompt": "x", "structured_outputs": {"regex": "("}},
        "structured_outputs.regex",
        "invalid_format",
    ),
    "parameters of a tool": (
        "chat/completions",
        tools(BAD),
        "tools",
        "invalid_function_parameters",
    ),
    "parameters of a tool that must be called, beside a form": (
        "chat/completions",
        {**tools(BAD), **schema({"type": "object"})},
        "tools",
        "invalid_function_parameters",
    ),
    "schema of a response": (
        "responses",
        response(**text(BAD)),
        "text.format",
        "invalid_json_schema",
    ),
    "tool of a response": (
        "responses",
        response(tools=[FLAT], tool_choice="required"),
        "tools",
        "invalid_function_parameters",
    ),
    "long schema of a chat": (
        "chat/completions",
        {"messages": HELLO, **schema(LONG)},
        "response_format",
        "format_too_large",
    ),
    "many choices": (
        "completions",
        {"prompt": "x", "structured_outputs": {"choice": ["a"] * 1001}},
        "structured_outputs.choice",
        "format_too_large",
    ),
    "long schema of a response": (
        "responses",
        response(**text(LONG)),
        "text.format",
        "format_too_large",
    ),
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with scripted_server() as server, httpx.Client(base_url=f"{server.url}/v1") as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", FORMS)
def test_the_parameter_that_has_the_form_is_named(client: httpx.Client, case: str, stream: bool):
    path, body, param, code = FORMS[case]

    reply = client.post(f"/{path}", json={**body, "stream": stream})

    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)
