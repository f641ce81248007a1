"""Semantic functions: a Python signature whose docstring is a prompt template.

Calling one records a call and returns futures at once; nothing is sent. Parameters annotated
``SemanticVariable`` become variables of the graph (a ``str`` is wrapped in one); all others become
constant text by ``str()``, unless a variable is passed. The body of the function is never run.

``@SemanticFunction`` sends the template as one raw prompt. With ``chat=True`` the text before the
first output becomes the user's message and the outputs the assistant's turn, in the model's own
chat format; ``system="..."`` adds a system message, which may hold inputs, and implies ``chat``.
"""

from __future__ import annotations

import functools
import inspect
import keyword
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any, overload

from parrot_backend.protocol import InputSegment, Sampling, TextSegment
from parrot_integrations._program import Program
from parrot_integrations.errors import ProgramError
from parrot_integrations.graph import CallOptions
from parrot_integrations.scope import choose_program
from parrot_integrations.templates import Argument, PromptTemplate, chat_prompt, raw_prompt
from parrot_integrations.variable import SemanticVariable


class TemplateFunction:
    """A checked semantic function; made by :func:`SemanticFunction`.

    Attributes:
        template: The prompt.
        options: How its calls are generated.
    """

    __name__: str
    __wrapped__: Callable[..., object]

    def __init__(
        self,
        function: Callable[..., object],
        template: PromptTemplate,
        options: CallOptions,
    ) -> None:
        functools.update_wrapper(self, function)
        self.template = template
        self.options = options
        self._hint = function.__name__
        self._signature = inspect.signature(function)
        self._variables = _semantic_parameters(function, self._signature)
        _check_parameters(self._signature, template)
        _check_outputs(template, options.sampling_of_output)
        self._result = _result_type(self._hint, template.outputs)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Record a call.

        Returns:
            The output's variable; with several outputs a named tuple of them.

        Raises:
            ProgramError: An argument of a semantic parameter is not text, or a variable belongs
                to another program.
            TypeError: The arguments do not fit the signature.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = {name: self._wrapped(name, value) for name, value in bound.arguments.items()}
        program = choose_program(
            value.program for value in values.values() if isinstance(value, SemanticVariable)
        )
        names = program.add_call(
            self._hint,
            self.template,
            {name: self._argument(program, name, value) for name, value in values.items()},
            self.options,
        )
        outputs = {o: SemanticVariable.of_output(program, name) for o, name in names.items()}
        return self._result(**outputs)

    def __repr__(self) -> str:
        """Show the name and what goes in and out."""
        inputs, outputs = ", ".join(self.template.inputs), ", ".join(self.template.outputs)
        return f"<SemanticFunction {self._hint}({inputs}) -> {outputs}>"

    def _wrapped(self, name: str, value: object) -> SemanticVariable | str:
        if isinstance(value, SemanticVariable):
            return value
        if name not in self._variables:
            return str(value)
        if not isinstance(value, str):
            raise ProgramError(
                "invalid_argument",
                f"{self._hint}: {name!r} is a semantic variable and takes one, or a str, not "
                f"{type(value).__name__}",
            )
        return SemanticVariable(value)

    def _argument(self, program: Program, name: str, value: SemanticVariable | str) -> Argument:
        if isinstance(value, str):
            return TextSegment(text=value)
        return InputSegment(variable=value.name_in(program, f"{self._hint}-{name}"))


@overload
def SemanticFunction(function: Callable[..., object], /) -> TemplateFunction: ...


@overload
def SemanticFunction(
    *,
    model: str | None = None,
    sampling: Sampling | None = None,
    outputs: Mapping[str, Sampling] | None = None,
    chat: bool = False,
    system: str | None = None,
) -> Callable[[Callable[..., object]], TemplateFunction]: ...


def SemanticFunction(  # noqa: N802 - the paper's name
    function: Callable[..., object] | None = None,
    /,
    *,
    model: str | None = None,
    sampling: Sampling | None = None,
    outputs: Mapping[str, Sampling] | None = None,
    chat: bool = False,
    system: str | None = None,
) -> TemplateFunction | Callable[[Callable[..., object]], TemplateFunction]:
    """Make a semantic function of a Python function, bare or with options.

    Args:
        function: Its docstring is the template.
        model: Name of the model; None is the server's default.
        sampling: Sampling parameters of all outputs.
        outputs: Sampling parameters of single outputs, by placeholder.
        chat: Send chat messages instead of a raw prompt.
        system: Template of a system message; implies ``chat``.

    Raises:
        ProgramError: The template or the signature is wrong; the code says how.
    """
    options = CallOptions(sampling or Sampling(), dict(outputs or {}), model)

    def decorate(function: Callable[..., object]) -> TemplateFunction:
        docstring = function.__doc__
        if not docstring or not docstring.strip():
            raise ProgramError(
                "no_docstring",
                f"{function.__name__} has no docstring to be its template (python -OO drops them)",
            )
        is_chat = chat or system is not None
        template = chat_prompt(docstring, system) if is_chat else raw_prompt(docstring)
        return TemplateFunction(function, template, options)

    return decorate if function is None else decorate(function)


def _semantic_parameters(
    function: Callable[..., object], signature: inspect.Signature
) -> frozenset[str]:
    try:
        annotations = inspect.get_annotations(function, eval_str=True)
    except NameError:
        # An annotation names something that exists only for type checkers.
        annotations = inspect.get_annotations(function)
    return frozenset(name for name in signature.parameters if _is_semantic(annotations.get(name)))


def _is_semantic(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == SemanticVariable.__name__
    return annotation is SemanticVariable


def _check_parameters(signature: inspect.Signature, template: PromptTemplate) -> None:
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ProgramError(
                "unsupported_parameter", f"parameter {parameter} has no place in a template"
            )
        if parameter.name in template.outputs:
            raise ProgramError(
                "output_is_parameter", f"{parameter.name!r} is a parameter and an output"
            )
        if parameter.name not in template.inputs:
            raise ProgramError(
                "unused_parameter",
                f"parameter {parameter.name!r} is not in the template: add "
                f"{{{{input:{parameter.name}}}}}",
            )
    for name in template.inputs:
        if name not in signature.parameters:
            raise ProgramError(
                "placeholder_without_parameter",
                f"the template reads {{{{input:{name}}}}}, but there is no parameter of that name",
            )


def _check_outputs(template: PromptTemplate, sampling_of_output: Mapping[str, Sampling]) -> None:
    for name in sampling_of_output:
        if name not in template.outputs:
            raise ProgramError("unknown_output", f"the template has no output named {name!r}")
    for name in template.outputs:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise ProgramError(
                "invalid_output_name", f"output {name!r} must be a public Python name"
            )


def _result_type(hint: str, outputs: tuple[str, ...]) -> Callable[..., Any]:
    if len(outputs) > 1:
        return namedtuple(f"{hint}Outputs", outputs)
    return lambda **variables: variables[outputs[0]]
