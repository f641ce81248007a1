"""Bodies with very many wrong elements: what is wrong is told of the first, not of each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from parrot_backend import protocol as wire
from parrot_backend.errors import RequestError
from parrot_backend.server.openai.base import RequestModel, parse_request
from parrot_backend.server.openai.chat import ChatRequest
from parrot_backend.server.openai.completions import CompletionRequest
from parrot_backend.server.openai.responses import ResponseRequest
from tests.server.conftest import StartServer

MANY = 3000
#: A value may have a few forms, and of each a list within a list is told.
MAX_ERRORS = 16

USER = {"role": "user", "content": "Hello"}


def fields(value: Any) -> dict[str, Any]:
    return {f"x{number}": value for number in range(MANY)}


def chat(**fields: Any) -> tuple[type[RequestModel], dict[str, Any]]:
    return ChatRequest, {"messages": [USER], **fields}


def said(**message: Any) -> tuple[type[RequestModel], dict[str, Any]]:
    return chat(messages=[{"role": "assistant", "content": "x", **message}])


def response(**fields: Any) -> tuple[type[RequestModel], dict[str, Any]]:
    return ResponseRequest, {"input": "x", **fields}


def item(**fields: Any) -> tuple[type[RequestModel], dict[str, Any]]:
    return response(input=[{"role": "user", "content": "x", **fields}])


#: A request, the parameter that is named, and what is said of it.
OPENAI: dict[str, tuple[tuple[type[RequestModel], dict[str, Any]], str, str]] = {
    "messages": (chat(messages=[0] * MANY), "messages[0]", "Input should be an object"),
    "parts": (said(content=[0] * MANY), "messages[0].content[0]", "Input should be an object"),
    "calls": (
        said(tool_calls=[0] * MANY),
        "messages[0].tool_calls[0]",
        "Input should be an object",
    ),
    "fields of a message": (
        said(**fields(0)),
        "messages[0].x0",
        "Extra inputs are not permitted",
    ),
    "tools": (chat(tools=[0] * MANY), "tools[0]", "Input should be an object"),
    "stop": (chat(stop=[0] * MANY), "stop[0]", "Input should be a valid string"),
    "choice": (
        chat(structured_outputs={"choice": [0] * MANY}),
        "structured_outputs.choice[0]",
        "Input should be a valid string",
    ),
    "arguments of the template": (
        chat(chat_template_kwargs=fields([])),
        "chat_template_kwargs.x0",
        "Input should be a valid string",
    ),
    "labels": (
        chat(parrot={"metadata": fields([])}),
        "parrot.metadata.x0",
        "Input should be a valid string",
    ),
    "hints": (chat(parrot=fields(0)), "parrot.x0", "Extra inputs are not permitted"),
    "prompts": (
        (CompletionRequest, {"prompt": [{}] * MANY}),
        "prompt[0]",
        "Input should be a valid string",
    ),
    "tokens": (
        (CompletionRequest, {"prompt": [["x"] * MANY] * 3}),
        "prompt[0][0]",
        "Input should be a valid integer",
    ),
    "items": (response(input=[0] * MANY), "input[0]", "Input should be an object"),
    "parts of an item": (
        item(content=[0] * MANY),
        "input[0].content[0]",
        "Input should be an object",
    ),
    "fields of an item": (item(**fields(0)), "input[0].x0", "Extra inputs are not permitted"),
    "tools of a response": (response(tools=[0] * MANY), "tools[0]", "Input should be an object"),
    "include": (response(include=[0] * MANY), "include[0]", "Input should be"),
    "metadata": (
        response(metadata=fields(0)),
        "metadata.x0",
        "Input should be a valid string",
    ),
}


@pytest.mark.parametrize("case", OPENAI)
def test_a_request_of_openais_api(case: str):
    (model, body), param, message = OPENAI[case]
    content = json.dumps(body).encode()

    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(content)
    with pytest.raises(RequestError) as told:
        parse_request(model, content)

    assert caught.value.error_count() <= MAX_ERRORS
    assert told.value.context == {"field": param}
    assert told.value.message.startswith(f"{param}: {message}")


def call(**fields: Any) -> dict[str, Any]:
    return {"nodes": [{"kind": "call", "name": "a", "prompt": "x{{output:y}}", **fields}]}


def spoken(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "assistant", "content": "{{output:y}}", **fields}]
    return {"nodes": [{"kind": "call", "name": "a", "messages": messages}]}


SUBMITS: dict[str, tuple[dict[str, Any], str]] = {
    "nodes": ({"nodes": [0] * MANY}, "nodes.0"),
    "variables": ({"variables": [0] * MANY}, "variables.0"),
    "outputs": ({"outputs": [0] * MANY}, "outputs.0"),
    "fields": (fields(0), "x0"),
    "labels": ({"metadata": fields([])}, "metadata.x0.str"),
    "fields of a node": (call(**fields(0)), "nodes.0.call.x0"),
    "segments": (call(prompt=[0] * MANY), "nodes.0.call.prompt.str"),
    "stop": (call(sampling={"stop": [0] * MANY}), "nodes.0.call.sampling.stop.0"),
    "tools": (call(tools=[0] * MANY), "nodes.0.call.tools.0"),
    "messages": (
        {"nodes": [{"kind": "call", "name": "a", "messages": [0] * MANY}]},
        "nodes.0.call.messages.0",
    ),
    "calls": (spoken(tool_calls=[0] * MANY), "nodes.0.call.messages.0.tool_calls.0"),
    "choices": (
        call(sampling={"response_format": {"type": "choice", "choices": [0] * MANY}}),
        "nodes.0.call.sampling.response_format.choice.choices.0",
    ),
    "transforms": (
        {
            "nodes": [
                {"kind": "transform", "name": "t", "content": "x", "output": "y"}
                | {"transforms": [0] * MANY}
            ]
        },
        "nodes.0.transform.transforms.0",
    ),
    "nodes of a body": (
        {
            "nodes": [
                {"kind": "map", "name": "m", "item": "i", "output": "o"}
                | {"items": {"variable": "x"}, "body": {"nodes": [0] * MANY, "result": "x"}}
            ]
        },
        "nodes.0.map.body.nodes.0",
    ),
}


@pytest.mark.parametrize("case", SUBMITS)
async def test_a_submit(start: StartServer, case: str):
    body, field = SUBMITS[case]
    server = await start()

    with pytest.raises(ValidationError) as caught:
        wire.SubmitRequest.model_validate(from_json(json.dumps(body)))
    error = (await server.submit(**body)).json()["error"]

    assert caught.value.error_count() <= MAX_ERRORS
    assert error["context"]["field"] == field


def test_every_list_of_a_request_ends_at_its_first_wrong_element():
    models = {*_models(ChatRequest), *_models(CompletionRequest), *_models(ResponseRequest)}
    models |= _models(wire.SubmitRequest) | _models(wire.CancelRequest)

    slow = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if _has_slow_list(field.annotation, [repr(one) for one in field.metadata])
    ]

    assert slow == []


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    todo = [model]
    while todo:
        for field in todo.pop().model_fields.values():
            new = {one for one in _types(field.annotation) if _is_model(one)} - found
            found |= new
            todo += new
    return found


def _is_model(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, BaseModel)


def _types(annotation: Any) -> list[Any]:
    parts = [part for one in getattr(annotation, "__args__", ()) for part in _types(one)]
    return [annotation, *parts]


def _has_slow_list(annotation: Any, metadata: list[str]) -> bool:
    """Tell whether a tuple of any length stands there that does not fail fast."""
    marks = [*metadata, *map(repr, getattr(annotation, "__metadata__", ()))]
    parts = getattr(annotation, "__args__", ())
    is_list = getattr(annotation, "__origin__", None) is tuple and ... in parts
    if is_list and not any("fail_fast" in mark or "FailFast" in mark for mark in marks):
        return True
    inherited = marks if hasattr(annotation, "__metadata__") else []
    return any(_has_slow_list(part, inherited) for part in parts if part is not ...)
