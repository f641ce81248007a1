"""Events and other frozen records of the core as JSON values, and back. Pure.

A record becomes an object with its class under ``is`` and those fields that are not as by default;
a named tuple and a tuple become arrays, a mapping of texts an object; bytes become hexadecimal;
an enumeration its value; times without an end ``"inf"``. What is read is checked against the
declared types of the fields.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

#: Any JSON value.
Json = Any

_CLASS = "is"


class CodecError(ValueError):
    """A JSON value is not what was declared; the message says what and where."""


def encode(value: object) -> Json:
    """Return a record, or what can stand in one, as a JSON value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        encoded: dict[str, Json] = {_CLASS: type(value).__name__}
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            if field.default is dataclasses.MISSING or content != field.default:
                encoded[field.name] = encode(content)
        return encoded
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(content) for key, content in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot stand in a record")


def decode(declared: Any, value: Json, where: str = "") -> Any:
    """Return what ``encode`` made a JSON value of.

    Args:
        declared: The type that is expected: a record, a union of records, or a field's type.
        value: The JSON value.
        where: For messages.

    Raises:
        CodecError: It is something else.
    """
    declared = getattr(declared, "__supertype__", declared)  # what a NewType is made of
    origin = get_origin(declared)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(declared), value, where)
    if origin is tuple:
        return _decode_tuple(get_args(declared), value, where)
    if origin is Mapping:
        return _decode_mapping(get_args(declared), value, where)
    if origin is Literal:
        if value in get_args(declared):
            return value
        raise CodecError(f"{where}: {value!r} is none of {get_args(declared)}")
    if declared is type(None) and value is None:
        return None
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        return _decode_record(declared, value, where)
    return _decode_plain(declared, value, where)


def _decode_plain(declared: Any, value: Json, where: str) -> Any:
    if declared is float and value in ("inf", "-inf"):
        return float(value)
    if declared is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if declared is bytes and isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise CodecError(f"{where}: {value!r} is not hexadecimal") from None
    if declared in (str, int, float, bool) and type(value) is declared:
        return value
    if isinstance(declared, type) and issubclass(declared, Enum):
        try:
            return declared(value)
        except ValueError:
            raise CodecError(f"{where}: {value!r} is no {declared.__name__}") from None
    if isinstance(declared, type) and issubclass(declared, tuple) and isinstance(value, list):
        hints = _hints(declared)
        if len(hints) == len(value):
            items = zip(hints.items(), value, strict=True)
            return declared(*(decode(hint, v, f"{where}.{name}") for (name, hint), v in items))
    raise CodecError(f"{where}: expected {getattr(declared, '__name__', declared)}, got {value!r}")


def _decode_union(options: tuple[Any, ...], value: Json, where: str) -> Any:
    if isinstance(value, dict) and _CLASS in value:
        for option in options:
            if getattr(option, "__name__", "") == value[_CLASS]:
                return decode(option, value, where)
    # A whole number is an int before it is a float, and a text before it is an infinite time.
    for option in sorted(options, key=lambda option: option is float):
        try:
            return decode(option, value, where)
        except CodecError:
            continue
    raise CodecError(f"{where}: {_short(value)} is none of what it may be")


def _decode_tuple(options: tuple[Any, ...], value: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise CodecError(f"{where}: expected an array, got {_short(value)}")
    if len(options) == 2 and options[1] is Ellipsis:
        return tuple(decode(options[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(options) != len(value):
        raise CodecError(f"{where}: expected {len(options)} items, got {len(value)}")
    return tuple(
        decode(option, v, f"{where}[{i}]")
        for i, (option, v) in enumerate(zip(options, value, strict=True))
    )


def _decode_mapping(options: tuple[Any, ...], value: Json, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise CodecError(f"{where}: expected an object, got {_short(value)}")
    of_key, of_value = options
    return {
        decode(of_key, key, where): decode(of_value, content, f"{where}.{key}")
        for key, content in value.items()
    }


def _decode_record(declared: type, value: Json, where: str) -> Any:
    name = declared.__name__
    if not isinstance(value, Mapping) or value.get(_CLASS) != name:
        raise CodecError(f"{where or 'it'}: expected {name}, got {_short(value)}")
    hints = _hints(declared)
    unknown = sorted(set(value) - set(hints) - {_CLASS})
    if unknown:
        raise CodecError(f"{where}{name} has no field {unknown[0]!r}")
    given = {
        key: decode(hints[key], content, f"{where}{name}.{key}")
        for key, content in value.items()
        if key != _CLASS
    }
    try:
        return declared(**given)
    except TypeError as exc:
        raise CodecError(f"{where}{name}: {exc}") from None


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def _hints(declared: type) -> dict[str, Any]:
    # Two modules name each other's records, so one of them imports the other for types only.
    from parrot_backend.core.events import NodeSpec

    return get_type_hints(declared, localns={"NodeSpec": NodeSpec})
