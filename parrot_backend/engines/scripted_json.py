"""JSON that a schema admits, made up from a source of words. Pure.

It knows what schemas of tools and outputs are mostly made of: types, properties, items, enums,
constants, references, alternatives, and bounds of lengths and numbers. Patterns, formats and
conditions are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

#: Deeper than this only what is required is written, and soon after nothing more.
_FULL_DEPTH, _MAX_DEPTH = 4, 32

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


class SchemaError(ValueError):
    """A schema for which nothing can be made up; the message says why."""


def make_example(schema: Any, next_word: Callable[[], str]) -> Any:
    """Return a value that a schema admits.

    Strings are words, numbers are lengths of words, an array has one item, and of alternatives the
    first is taken. All properties are written, in the order of the schema.

    Args:
        schema: The schema, decoded.
        next_word: Gives words.

    Raises:
        SchemaError: It is no schema, or one that only an endless value would meet.
    """
    return _Maker(schema, next_word).make(schema, 0)


class _Maker:
    def __init__(self, root: Any, next_word: Callable[[], str]) -> None:
        self._root = root
        self._next_word = next_word

    def make(self, schema: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise SchemaError("the schema is too deep")
        if schema is True:
            return self._next_word()
        if not isinstance(schema, dict):
            raise SchemaError(f"not a schema: {schema!r}")
        if "$ref" in schema:
            return self.make(self._resolve(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return _first(schema["enum"], "enum")
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self.make(_first(schema[name], name), depth + 1)
        if "allOf" in schema:
            return self.make(_merged(schema), depth + 1)
        return self._make_type(_type_of(schema), schema, depth)

    def _make_type(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._make_object(schema, depth)
            case "array":
                return self._make_array(schema, depth)
            case "string":
                return self._make_string(schema)
            case "integer" | "number":
                return _bounded(len(self._next_word()), schema)
            case "boolean":
                return len(self._next_word()) % 2 == 0
        return None

    def _make_object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError("properties must be an object, and required an array")
        names = dict.fromkeys([*properties, *required])
        return {
            name: self.make(properties.get(name, True), depth + 1)
            for name in names
            if depth < _FULL_DEPTH or name in required
        }

    def _make_array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        most = int(schema.get("maxItems", 1 if depth < _FULL_DEPTH else 0))
        count = max(min(1, most), int(schema.get("minItems", 0)))
        return [self.make(schema.get("items", True), depth + 1) for _ in range(count)]

    def _make_string(self, schema: dict[str, Any]) -> str:
        text = self._next_word()
        while len(text) < schema.get("minLength", 0):
            text += self._next_word()
        return text[: schema.get("maxLength", len(text))]

    def _resolve(self, reference: Any) -> Any:
        found = self._root
        for step in str(reference).removeprefix("#").strip("/").split("/"):
            if not isinstance(found, dict) or (step and step not in found):
                raise SchemaError(f"the schema refers to {reference!r}, which is not there")
            found = found[step] if step else found
        return found


def _first(options: Any, name: str) -> Any:
    if not isinstance(options, list) or not options:
        raise SchemaError(f"{name} must be an array that is not empty")
    return options[0]


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    merged = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema["allOf"]:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged |= part
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = _first(kind, "type") if isinstance(kind, list) else kind
    if kind not in _TYPES:
        raise SchemaError(f"there is no type {kind!r}")
    return str(kind)


def _bounded(number: int, schema: dict[str, Any]) -> Any:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - 1)
    return max(least, min(number, most))
