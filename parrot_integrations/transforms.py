"""Texts put together on the server from several variables, without a call of a model."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.protocol import (
    InputSegment,
    OutputSegment,
    TemplateError,
    TextSegment,
    parse_template,
)
from parrot_integrations.errors import ProgramError
from parrot_integrations.scope import choose_program
from parrot_integrations.variable import SemanticVariable

Piece = SemanticVariable | TextSegment


def join(variables: Sequence[SemanticVariable], separator: str = "") -> SemanticVariable:
    """Return the texts of several variables, one after the other.

    Args:
        variables: At least one.
        separator: Literal text between each two.
    """
    if not variables:
        raise ProgramError("nothing_to_join", "join needs at least one variable")
    pieces: list[Piece] = []
    for variable in variables:
        if pieces and separator:
            pieces.append(TextSegment(text=separator))
        pieces.append(variable)
    return _composed("joined", [(piece, "part") for piece in pieces])


def format(template: str, /, **arguments: SemanticVariable | str) -> SemanticVariable:
    """Return a template with ``{{input:name}}`` replaced by the arguments of these names.

    Args:
        template: Taken literally but for its placeholders; white space is kept.
        arguments: Variables, or text that is taken literally.
    """
    try:
        segments = parse_template(template)
    except TemplateError as exc:
        raise ProgramError(exc.code, str(exc)) from exc
    pieces: list[tuple[Piece, str]] = []
    for segment in segments:
        if isinstance(segment, OutputSegment):
            raise ProgramError("output_in_format", "format generates nothing: use a function")
        if isinstance(segment, TextSegment):
            pieces.append((segment, ""))
            continue
        name = segment.variable
        if name not in arguments:
            raise ProgramError("placeholder_without_parameter", f"no argument named {name!r}")
        argument = arguments[name]
        pieces.append((TextSegment(text=argument) if isinstance(argument, str) else argument, name))
    used = {segment.variable for segment in segments if isinstance(segment, InputSegment)}
    if unused := sorted(arguments.keys() - used):
        raise ProgramError("unused_parameter", f"the template does not use {', '.join(unused)}")
    return _composed("formatted", pieces)


def _composed(hint: str, pieces: Sequence[tuple[Piece, str]]) -> SemanticVariable:
    """Record a transform of pieces, each with a hint for its name if it has none."""
    program = choose_program(p.program for p, _ in pieces if isinstance(p, SemanticVariable))
    content = tuple(
        piece
        if isinstance(piece, TextSegment)
        else InputSegment(variable=piece.name_in(program, piece_hint))
        for piece, piece_hint in pieces
    )
    return SemanticVariable.of_output(program, program.add_transform(hint, content))
