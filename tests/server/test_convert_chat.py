from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from parrot_backend.core.chat import (
    NO_CHAT,
    NO_HEAD,
    ChatOptions,
    MessageHead,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolCall,
)
from parrot_backend.core.events import CallSpec
from parrot_backend.core.prompt import Output, Role
from parrot_backend.errors import RequestError
from parrot_backend.protocol import CallNode, SubmitRequest
from parrot_backend.server.convert import SubmitContext, submit_to_event
from tests.server.programs import Body

LOOK: Body = {
    "name": "look",
    "description": "Look.",
    "parameters": {"type": "object", "properties": {"z": {}, "a": {}}},
}
WAIT: Body = {"name": "wait"}
OUTPUT: Body = {"role": "assistant", "content": "{{output:out}}"}


def chat(*messages: Body, **fields: Any) -> Body:
    said = messages or ({"role": "user", "content": "hi"}, OUTPUT)
    return {"kind": "call", "name": "c", "messages": list(said), **fields}


def convert(node: Body) -> CallSpec:
    context = SubmitContext("s", True, "default", 0.0, {})  # type: ignore[arg-type]
    (spec,) = submit_to_event(SubmitRequest.model_validate({"nodes": [node]}), context).nodes
    assert isinstance(spec, CallSpec)
    return spec


def test_without_anything_special_there_is_nothing():
    spec = convert(chat())

    assert spec.chat == NO_CHAT
    assert [s.head for s in spec.segments if isinstance(s, Role)] == [NO_HEAD, NO_HEAD]
    (output,) = [s for s in spec.segments if isinstance(s, Output)]
    assert (output.sampling.logprobs, output.sampling.response_format) == (None, None)


def test_tools_keep_the_order_of_their_keys():
    node = chat(
        tools=[LOOK, WAIT],
        tool_choice={"name": "wait"},
        parallel_tool_calls=False,
        chat_template_kwargs={"enable_thinking": False, "level": "low"},
    )

    assert convert(node).chat == ChatOptions(
        (
            Tool("look", "Look.", '{"type": "object", "properties": {"z": {}, "a": {}}}'),
            Tool("wait", "", '{"type": "object", "properties": {}}'),
        ),
        NamedTool("wait"),
        False,
        (("enable_thinking", False), ("level", "low")),
    )


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_plain_choices(choice: str):
    assert convert(chat(tools=[LOOK], tool_choice=choice)).chat.tool_choice == choice


def test_messages_keep_what_they_have_beside_text():
    call = {"id": "c1", "name": "look", "arguments": '{"z": 1}'}
    spec = convert(
        chat(
            {"role": "user", "content": "hi", "name": "Ada"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "a ship", "tool_call_id": "c1", "name": "look"},
            OUTPUT,
        )
    )

    assert [s for s in spec.segments if isinstance(s, Role)] == [
        Role("user", MessageHead(name="Ada")),
        Role("assistant", MessageHead(tool_calls=(ToolCall("c1", "look", '{"z": 1}'),))),
        Role("tool", MessageHead(name="look", tool_call_id="c1")),
        Role("assistant"),
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            {"type": "json_schema", "json_schema": {"type": "object", "b": 1, "a": 2}},
            ResponseFormat("json_schema", '{"type": "object", "b": 1, "a": 2}'),
        ),
        ({"type": "json_object"}, ResponseFormat("json_object")),
        ({"type": "regex", "pattern": "a+"}, ResponseFormat("regex", "a+")),
        ({"type": "choice", "choices": ["ja", "nö"]}, ResponseFormat("choice", '["ja", "nö"]')),
        ({"type": "grammar", "grammar": "root ::= x"}, ResponseFormat("grammar", "root ::= x")),
    ],
    ids=lambda one: one["type"] if isinstance(one, dict) else "",
)
def test_forms_of_outputs(wanted: Body, expected: ResponseFormat):
    spec = convert(chat(sampling={"response_format": wanted, "logprobs": 3}))

    (output,) = [s for s in spec.segments if isinstance(s, Output)]
    assert output.sampling.response_format == expected
    assert output.sampling.logprobs == 3


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (chat(tool_choice="required"), "unknown_tool"),
        (chat(tool_choice={"name": "look"}), "unknown_tool"),
        (chat(tools=[WAIT], tool_choice={"name": "look"}), "unknown_tool"),
        (chat(tools=[WAIT, LOOK, WAIT]), "duplicate_tool"),
        (
            chat(
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "{{output:a}}, {{output:b}}"},
                tools=[LOOK],
            ),
            "misplaced_tools",
        ),
        (chat({"role": "user", "content": "hi"}, tools=[LOOK]), "misplaced_tools"),
        (
            chat(
                {
                    **OUTPUT,
                    "tool_calls": [{"id": "c", "name": "look", "arguments": "{}"}],
                }
            ),
            "misplaced_output",
        ),
        (chat(chat_template_kwargs={"chat_template": "{{ x }}"}), "unsupported"),
        (chat(chat_template_kwargs={"tools": 1}), "unsupported"),
    ],
)
def test_what_is_refused(node: Body, code: str):
    with pytest.raises(RequestError) as caught:
        convert(node)

    assert caught.value.code == code
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "node",
    [
        {"kind": "call", "name": "c", "prompt": "x{{output:y}}", "tools": [LOOK]},
        chat({"role": "user", "content": "hi", "tool_call_id": "c1"}),
        chat({"role": "tool", "content": "hi"}),
        chat(tools=[{"name": "no spaces"}]),
    ],
)
def test_what_the_wire_refuses(node: Body):
    with pytest.raises(ValidationError):
        CallNode.model_validate(json.loads(json.dumps(node)))


@pytest.mark.parametrize(
    ("form", "limit"),
    [
        ({"type": "json_schema", "json_schema": {"title": "a" * 65_536}}, 65_536),
        ({"type": "regex", "pattern": "a" * 65_537}, 65_536),
        ({"type": "grammar", "grammar": "a" * 65_537}, 65_536),
        ({"type": "choice", "choices": ["a" * 65_536]}, 65_536),
        ({"type": "choice", "choices": ["a"] * 1001}, 1000),
    ],
    ids=["schema", "regex", "grammar", "choice", "choices"],
)
def test_a_form_that_is_too_large_is_refused(form: Body, limit: int):
    with pytest.raises(RequestError, match=f"response_format has .* {limit} are") as caught:
        convert(chat(sampling={"response_format": form}))
    assert (caught.value.code, caught.value.status) == ("format_too_large", 413)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "regex", "pattern": "a" * 65_536},
        {"type": "choice", "choices": [f"{i}" for i in range(1000)]},
    ],
    ids=["regex", "choices"],
)
def test_a_form_of_the_largest_size_is_taken(form: Body):
    convert(chat(sampling={"response_format": form}))


def test_tools_that_are_too_large_together_are_refused():
    tools = [{"name": f"t{i}", "description": "a" * 130_000} for i in range(3)]
    convert(chat(tools=tools[:2]))
    with pytest.raises(RequestError, match="call 'c': the tools have") as caught:
        convert(chat(tools=tools))
    assert (caught.value.code, caught.value.status) == ("tools_too_large", 413)


def test_a_schema_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch):
    def too_deep(*args: Any, **kwargs: Any) -> str:
        raise RecursionError

    monkeypatch.setattr(json, "dumps", too_deep)
    with pytest.raises(RequestError, match="nested too deeply"):
        convert(chat(tools=[LOOK]))
