"""The sessions of the fake server: graphs that are evaluated by a text function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from parrot_backend.protocol import (
    CallNode,
    FailureView,
    InputSegment,
    OutputSegment,
    StreamToken,
    SubmitRequest,
    TransformNode,
    Usage,
    VariableState,
    VariableView,
    WireModel,
    WireSegment,
)

Node = CallNode | TransformNode


@dataclass
class FakeVariable:
    """One variable, and everything a stream of it says from the start."""

    view: VariableView
    said: list[WireModel] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        return self.view.state in ("ready", "failed", "cancelled")


@dataclass
class FakeSession:
    """One session.

    Attributes:
        generate: Prompt to output; a ``ValueError`` fails the output with its text as the code.
        held: Names of outputs that are left to the test.
        details: What a call's view tells beside the value: tool calls, reasoning, ...
    """

    id: str
    generate: Callable[[str], str]
    held: set[str]
    details: Callable[[CallNode], dict[str, Any]] = lambda _node: {}
    variables: dict[str, FakeVariable] = field(default_factory=dict)
    waiting: dict[str, Node] = field(default_factory=dict)

    def add(self, body: SubmitRequest) -> None:
        for declared in body.variables:
            self._declare(declared.name)
            if declared.value is not None:
                self.settle(declared.name, value=declared.value)
        for node in body.nodes:
            assert isinstance(node, CallNode | TransformNode), "the fake knows no control flow"
            for name in outputs_of(node):
                self._declare(name)
            self.waiting[node.name] = node
        self.evaluate()

    def evaluate(self) -> None:
        """Carry out what has all its inputs, until nothing more can be."""
        while ready := [node for node in self.waiting.values() if self._has_inputs(node)]:
            for node in ready:
                del self.waiting[node.name]
                if isinstance(node, TransformNode):
                    ops = "".join(f"|{transform.op}" for transform in node.transforms)
                    self.settle(node.output, value=self._text(segments_of(node), {}) + ops)
                else:
                    self._call(node)

    def _has_inputs(self, node: Node) -> bool:
        return all(self.variables[name].view.state == "ready" for name in inputs_of(node))

    def settle(
        self,
        name: str,
        *,
        value: str | None = None,
        state: VariableState = "ready",
        error: FailureView | None = None,
        **more: Any,
    ) -> None:
        variable = self.variables[name]
        update = {"value": value, "state": state, "error": error, **more}
        variable.view = variable.view.model_copy(update=update)
        variable.said.append(variable.view)

    def fail(self, name: str, state: VariableState, cause: FailureView) -> None:
        """Settle a variable badly, and what depends on it."""
        if self.variables[name].is_settled:
            return
        self.settle(name, state=state, error=cause)
        for node in self.waiting.values():
            if name in inputs_of(node):
                for output in outputs_of(node):
                    path = (*cause.path, output)
                    self.fail(output, state, cause.model_copy(update={"path": path}))

    def _declare(self, name: str) -> None:
        assert name not in self.variables, f"duplicate variable {name}"
        view = VariableView(id=f"{self.id}.{name}", name=name, state="empty")
        self.variables[name] = FakeVariable(view)

    def _call(self, node: CallNode) -> None:
        values: dict[str, str] = {}
        segments = segments_of(node)
        for i, segment in enumerate(segments):
            if not isinstance(segment, OutputSegment):
                continue
            name = segment.variable
            if name in self.held:
                return
            try:
                values[name] = self.generate(self._text(segments[:i], values))
            except ValueError as exc:
                self.fail(name, "failed", failure(str(exc), name))
                return
            more = {
                "usage": Usage(prompt_tokens=1, completion_tokens=2, cached_tokens=0),
                "finish_reason": "stop",
                **self.details(node),
            }
            self._speak(name, more.get("reasoning"), "reasoning")
            self._speak(name, values[name], "text")
            self.settle(name, value=values[name], **more)

    def _speak(self, name: str, text: str | None, kind: Literal["text", "reasoning"]) -> None:
        for number, word in enumerate(text.split(" ") if text else ()):
            token = StreamToken(variable=name, text=" " * (number > 0) + word, kind=kind)
            self.variables[name].said.append(token)

    def _text(self, segments: list[WireSegment], values: dict[str, str]) -> str:
        texts = []
        for segment in segments:
            if isinstance(segment, InputSegment):
                texts.append(self.variables[segment.variable].view.value or "")
            elif isinstance(segment, OutputSegment):
                texts.append(values[segment.variable])
            else:
                texts.append(segment.text)
        return "".join(texts)


def failure(code: str, origin: str) -> FailureView:
    return FailureView(code=code, message=f"{origin} broke", origin=origin, path=(origin,))


def segments_of(node: Node) -> list[WireSegment]:
    if isinstance(node, TransformNode):
        contents = [node.content]
    elif node.messages is not None:
        contents = [message.content for message in node.messages]
    else:
        contents = [node.prompt or ()]
    return [segment for content in contents if not isinstance(content, str) for segment in content]


def inputs_of(node: Node) -> list[str]:
    return [s.variable for s in segments_of(node) if isinstance(s, InputSegment)]


def outputs_of(node: Node) -> list[str]:
    if isinstance(node, TransformNode):
        return [node.output]
    return [s.variable for s in segments_of(node) if isinstance(s, OutputSegment)]
