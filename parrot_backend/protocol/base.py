"""What all wire models have in common."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

#: Longest name of a variable or call, in characters.
MAX_NAME_CHARS = 128

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_\-]{0,127}$")]

#: A name, or that of a variable in an instance of a body (see ``nodes``).
Reference = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_\-]*(:[A-Za-z0-9_\-]+)*$", max_length=1024),
]

Scalar = str | int | float | bool | None

_ItemT = TypeVar("_ItemT")

#: A list that is checked up to its first wrong item: errors cost far more than items.
Many = Annotated[tuple[_ItemT, ...], Field(fail_fast=True)]

_SCALARS = (str, int, float, bool, type(None))


def _up_to_wrong(labels: Any) -> Any:
    if isinstance(labels, dict):
        for name, value in labels.items():
            is_finite = not isinstance(value, float) or math.isfinite(value)
            if not (isinstance(value, _SCALARS) and is_finite):
                return {name: value}
    return labels


#: Names with values, checked up to the first wrong one.
Labels = Annotated[dict[str, Scalar], BeforeValidator(_up_to_wrong)]


class WireModel(BaseModel):
    """Base of all wire models: unknown fields are errors, not silently dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
