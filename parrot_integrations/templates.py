"""Prompt templates of semantic functions: from a docstring to the prompt of a call.

A template is checked when the function is decorated, and filled when it is called: ``{{input:x}}``
becomes the text or variable given for ``x``, ``{{output:y}}`` the variable that is generated there.
White space at both ends of a template is dropped, because the layout of a docstring puts it there;
everything between is kept to the letter.

A raw prompt is one part without a role. A chat prompt has one part per message: the optional
``system`` template, the user's message (the template up to the first output, without white space
at its end), and the assistant's turn, which begins with the first output.

Pure: no I/O; knows nothing of variables but their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from parrot_backend.protocol import (
    CallNode,
    InputSegment,
    Message,
    OutputSegment,
    Sampling,
    TemplateError,
    TextSegment,
    parse_template,
)
from parrot_integrations.errors import ProgramError

Segment = TextSegment | InputSegment | OutputSegment
Role = Literal["system", "user", "assistant"]

#: What an argument is in a prompt: literal text, or a variable by name.
Argument = TextSegment | InputSegment


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive segments of a prompt; ``role`` None means a raw prompt."""

    role: Role | None
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A checked prompt whose segments still carry the placeholders' own names."""

    parts: tuple[Part, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input placeholders, in order of first use, without repeats."""
        return tuple(dict.fromkeys(s.variable for s in self._all() if isinstance(s, InputSegment)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output placeholders, in order."""
        return tuple(s.variable for s in self._all() if isinstance(s, OutputSegment))

    def fill(
        self,
        name: str,
        arguments: Mapping[str, Argument],
        outputs: Mapping[str, OutputSegment],
        *,
        sampling: Sampling,
        model: str | None,
    ) -> CallNode:
        """Return the call with every placeholder replaced; empty texts are left out."""
        parts = [
            Part(part.role, tuple(_filled(part.segments, arguments, outputs)))
            for part in self.parts
        ]
        first = parts[0]
        if first.role is None:
            return CallNode(name=name, prompt=first.segments, sampling=sampling, model=model)
        messages = tuple(
            Message(role=part.role, content=part.segments) for part in parts if part.role
        )
        return CallNode(name=name, messages=messages, sampling=sampling, model=model)

    def _all(self) -> Iterable[Segment]:
        return (segment for part in self.parts for segment in part.segments)


def raw_prompt(docstring: str) -> PromptTemplate:
    """Read a template that is sent as one raw prompt."""
    return _checked((Part(None, _parsed(docstring)),))


def chat_prompt(docstring: str, system: str | None = None) -> PromptTemplate:
    """Read a template that is sent as chat messages."""
    segments = _parsed(docstring)
    first_output = next(
        (i for i, segment in enumerate(segments) if isinstance(segment, OutputSegment)),
        len(segments),
    )
    user = _right_stripped(segments[:first_output])
    parts = [
        *([] if system is None else [Part("system", _system(system))]),
        *([Part("user", user)] if user else []),
        Part("assistant", segments[first_output:]),
    ]
    return _checked(tuple(parts))


def _parsed(template: str) -> tuple[Segment, ...]:
    try:
        return parse_template(inspect.cleandoc(template).strip())
    except TemplateError as exc:
        raise ProgramError(exc.code, str(exc)) from exc


def _system(template: str) -> tuple[Segment, ...]:
    segments = _parsed(template)
    if any(isinstance(segment, OutputSegment) for segment in segments):
        raise ProgramError("output_in_system", "a system message cannot hold an output")
    return segments


def _right_stripped(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    if not segments or not isinstance(segments[-1], TextSegment):
        return segments
    text = segments[-1].text.rstrip()
    return (*segments[:-1], TextSegment(text=text)) if text else segments[:-1]


def _checked(parts: tuple[Part, ...]) -> PromptTemplate:
    template = PromptTemplate(parts)
    outputs = template.outputs
    if not outputs:
        raise ProgramError(
            "template_without_output", "the template generates nothing: add {{output:name}}"
        )
    for name in outputs:
        if outputs.count(name) > 1:
            raise ProgramError("repeated_output", f"the template has two outputs named {name!r}")
        if name in template.inputs:
            raise ProgramError(
                "input_is_output", f"{name!r} is an input and an output of one template"
            )
    if not parts[0].segments or isinstance(parts[0].segments[0], OutputSegment):
        raise ProgramError("empty_prompt", "the template has nothing before its first output")
    return template


def _filled(
    segments: Iterable[Segment],
    arguments: Mapping[str, Argument],
    outputs: Mapping[str, OutputSegment],
) -> Iterable[Segment]:
    for segment in segments:
        match segment:
            case OutputSegment(variable=name):
                yield outputs[name]
            case InputSegment(variable=name):
                argument = arguments[name]
                if not isinstance(argument, TextSegment) or argument.text:
                    yield argument
            case TextSegment():
                yield segment
