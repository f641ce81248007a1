"""What all wire models have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

#: Longest name of a variable or call, in characters.
MAX_NAME_CHARS = 128

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_\-]{0,127}$")]

#: A name, or that of a variable in an instance of a body (see ``nodes``).
Reference = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_\-]*(:[A-Za-z0-9_\-]+)*$", max_length=1024),
]

Scalar = str | int | float | bool | None


class WireModel(BaseModel):
    """Base of all wire models: unknown fields are errors, not silently dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
