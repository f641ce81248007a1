"""Bodies of submits that several tests use."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


def call(name: str, prompt: str | list[Body], **fields: Any) -> Body:
    return {"kind": "call", "name": name, "prompt": prompt, **fields}


def external(name: str, value: str | None = None) -> Body:
    return {"name": name, "value": value}


def wanted(*names: str) -> list[Body]:
    return [{"variable": name} for name in names]


def one_call(prompt: str = "hi", **fields: Any) -> Body:
    """One call that makes ``out``."""
    nodes = [call("greet", prompt + "{{output:out}}")]
    return {"nodes": nodes, "outputs": wanted("out"), **fields}


def chain(**fields: Any) -> Body:
    """Code from a task, then a test from both; ``code`` and ``test`` are wanted."""
    return {
        "variables": [external("task", "snake")],
        "nodes": [
            call("write_test", "test {{input:task}} {{input:code}}: {{output:test}}"),
            call("write_code", "code {{input:task}}: {{output:code}}"),
        ],
        "outputs": wanted("code", "test"),
        **fields,
    }
