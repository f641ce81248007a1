"""Segments of a prompt to resolved parts, with the values that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from parrot_backend.core.ids import VariableId, name_of
from parrot_backend.core.prompt import (
    InPlace,
    Input,
    PartKind,
    PromptPart,
    PromptSegment,
    Role,
    Text,
)
from parrot_backend.core.transforms import TransformBudget, TransformError, apply_transforms
from parrot_backend.core.variable import Variable, VariableState

Variables = Mapping[VariableId, Variable]

#: Stands for a value that is not there yet.
PLACEHOLDER = PromptPart(PartKind.VALUE, "?")

#: Stands for one that is generated at its place: it has tokens of its own, so nothing moves to it.
IN_PLACE_PLACEHOLDER = PromptPart(PartKind.VALUE, "?", ())


def resolve(segments: Iterable[PromptSegment], variables: Variables) -> tuple[PromptPart, ...]:
    """Return the parts of segments whose inputs are all there.

    Raises:
        TransformError: A transform cannot do what it shall.
    """
    budget = TransformBudget()
    return tuple([_part(segment, variables, budget) for segment in segments])


def resolve_leading(
    segments: Sequence[PromptSegment], variables: Variables, start: int
) -> list[PromptPart]:
    """Return the parts of the segments from ``start`` up to the first whose input is not there."""
    parts: list[PromptPart] = []
    budget = TransformBudget()
    for position in range(start, len(segments)):
        segment = segments[position]
        if not _is_there(segment, variables):
            break
        try:
            parts.append(_part(segment, variables, budget))
        except TransformError:
            break  # the request will fail of it when its turn comes
    return parts


def with_placeholders(
    known: Sequence[PromptPart], segments: Sequence[PromptSegment]
) -> tuple[PromptPart, ...]:
    """Return a whole prompt: known leading parts, and placeholders for the values after them."""
    rest: list[PromptPart] = []
    for segment in segments[len(known) :]:
        match segment:
            case Role(role, head):
                rest.append(PromptPart(PartKind.ROLE, role, head=head))
            case Text(text):
                rest.append(PromptPart(PartKind.CONSTANT, text))
            case Input():
                rest.append(PLACEHOLDER)
            case InPlace():
                rest.append(IN_PLACE_PLACEHOLDER)
            case _:
                assert_never(segment)
    return (*known, *rest)


def _is_there(segment: PromptSegment, variables: Variables) -> bool:
    if isinstance(segment, Input | InPlace):
        return variables[segment.variable].state is VariableState.READY
    return True


def _part(segment: PromptSegment, variables: Variables, budget: TransformBudget) -> PromptPart:
    match segment:
        case Text():
            return PromptPart(PartKind.CONSTANT, segment.text)
        case Role(role, head):
            return PromptPart(PartKind.ROLE, role, head=head)
        case Input(variable, transforms):
            text = apply_transforms(_value(variables[variable]), transforms, budget)
            return PromptPart(PartKind.VALUE, text)
        case InPlace(variable):
            found = variables[variable]
            return PromptPart(PartKind.VALUE, _value(found), found.token_ids)
    assert_never(segment)


def _value(variable: Variable) -> str:
    assert variable.value is not None, f"{name_of(variable.id)} is not ready"
    return variable.value
