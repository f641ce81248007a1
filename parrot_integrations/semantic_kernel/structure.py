"""Forms of outputs as Semantic Kernel's users give them: types, or what Parrot takes. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from semantic_kernel.schema.kernel_json_schema_builder import KernelJsonSchemaBuilder

from parrot_integrations.planning.options import to_response_format


def plain_form(given: Any) -> Any:
    """Return a form of an output in words of OpenAI's API, or as it is if it is no type."""
    if not isinstance(given, type):
        return given
    if issubclass(given, BaseModel):
        schema = given.model_json_schema()
    else:
        schema = KernelJsonSchemaBuilder.build(given, structured_output=True)
    return {"type": "json_schema", "json_schema": {"name": given.__name__, "schema": schema}}


def check_response_format(given: Any) -> None:
    """Make sure that an output can have a form.

    Raises:
        ValueError: Not a known form.
    """
    to_response_format(plain_form(given))
