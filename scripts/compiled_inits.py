"""Writes out what ``@dataclass`` would write while a program runs, so that it is compiled as well.

A dataclass gets its ``__init__`` as a text when its module is imported: Python runs that in every
case, and one that is frozen sets each field by a call. A simulated call makes some forty records;
that is an eighth of its time. So the copy that is compiled has these methods in its sources. In it
nothing is frozen but for the type checker, which has seen the originals.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from dataclasses import dataclass

#: Classes with these make something else of their fields.
_OWN_WAYS = frozenset({"__init__", "__post_init__"})
#: What ``field`` may be told: it does not change how ``__init__`` looks.
_HARMLESS = frozenset({"default", "default_factory", "compare", "hash", "repr"})


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its type, and its default or what makes one, as source."""

    name: str
    type: str
    default: str | None = None
    factory: str | None = None

    @property
    def parameter(self) -> str:
        """How it stands between the brackets."""
        if self.factory is not None:
            return f"{self.name}: {self.type} | None = None"
        ending = "" if self.default is None else f" = {self.default}"
        return f"{self.name}: {self.type}{ending}"

    @property
    def assignment(self) -> str:
        """How it is set."""
        if self.factory is None:
            return f"self.{self.name} = {self.name}"
        return f"self.{self.name} = ({self.factory})() if {self.name} is None else {self.name}"


def bases_in(source: str) -> set[str]:
    """Return the names of all classes that others in a module are derived from."""
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    return {ast.unparse(base).rpartition(".")[2] for each in classes for base in each.bases}


def with_inits(source: str, bases: Set[str]) -> str:
    """Return a module in which dataclasses with slots have a written ``__init__``.

    Left as they are: those with bases, with an ``__init__`` or ``__post_init__`` of their own, with
    pseudo-fields, or with fields that ask for more than a default.

    Args:
        source: Of the module.
        bases: Classes that others are derived from, which stay as they are, too.
    """
    lines = source.splitlines(keepends=True)
    for definition, decorator, fields in reversed(list(_dataclasses(ast.parse(source)))):
        if definition.name in bases:
            continue
        assert definition.end_lineno is not None
        lines.insert(definition.end_lineno, _init(fields, _keywords(decorator)))
        first, last = decorator.lineno - 1, decorator.end_lineno
        lines[first:last] = [f"@{_unfrozen(decorator)}\n"]
    return "".join(lines)


def _dataclasses(
    module: ast.Module,
) -> Iterator[tuple[ast.ClassDef, ast.Call, list[_Field]]]:
    for node in module.body:
        if not isinstance(node, ast.ClassDef) or node.bases or len(node.decorator_list) != 1:
            continue
        decorator = node.decorator_list[0]
        is_call = isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass"
        methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
        if not is_call or methods & _OWN_WAYS:
            continue
        assert isinstance(decorator, ast.Call)
        fields = list(_fields(node))
        if "slots" in _keywords(decorator) and fields and None not in fields:
            yield node, decorator, [each for each in fields if each is not None]


def _fields(definition: ast.ClassDef) -> Iterator[_Field | None]:
    """Yield the fields; None for one that is more than a type and a default."""
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, kind = node.target.id, ast.unparse(node.annotation)
        if kind.startswith(("ClassVar", "InitVar", "KW_ONLY")):
            yield None
        elif not isinstance(node.value, ast.Call) or ast.unparse(node.value.func) != "field":
            yield _Field(name, kind, None if node.value is None else ast.unparse(node.value))
        else:
            told = {str(each.arg): ast.unparse(each.value) for each in node.value.keywords}
            plain = not told.keys() - _HARMLESS
            default, factory = told.get("default"), told.get("default_factory")
            yield _Field(name, kind, default, factory) if plain else None


def _keywords(decorator: ast.Call) -> dict[str, bool]:
    return {str(each.arg): ast.literal_eval(each.value) for each in decorator.keywords}


def _init(fields: list[_Field], keywords: dict[str, bool]) -> str:
    star = "*, " if keywords.get("kw_only") else ""
    parameters = ", ".join(each.parameter for each in fields)
    body = "".join(f"        {each.assignment}\n" for each in fields)
    return f"\n    def __init__(self, {star}{parameters}) -> None:\n{body}"


def _unfrozen(decorator: ast.Call) -> str:
    """Return the decorator for a class with its own ``__init__`` that is hashed as before."""
    keywords = _keywords(decorator)
    if keywords.pop("frozen", False) and keywords.get("eq", True):
        keywords["unsafe_hash"] = True
    told = "".join(f", {name}={value}" for name, value in keywords.items())
    return f"dataclass(init=False{told})"
