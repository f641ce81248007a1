"""Dataclasses whose ``__init__`` is written out are made, compared and hashed as before."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.compile_core import modules_in
from scripts.compiled_inits import bases_in, with_inits

ROOT = Path(__file__).resolve().parent.parent
_HEAD = """from __future__ import annotations
from dataclasses import InitVar, dataclass, field
from typing import ClassVar, Generic, TypeVar
T = TypeVar("T")
DEFAULT = (1, 2)

"""


@contextmanager
def module_of(source: str) -> Iterator[Any]:
    """Run a module, which dataclasses look up by its name."""
    module = types.ModuleType("made_for_a_test")
    sys.modules[module.__name__] = module
    try:
        exec(source, module.__dict__)
        yield module
    finally:
        del sys.modules[module.__name__]


def outcome(source: str, call: str) -> tuple[object, ...]:
    """What an expression makes: its text, whether two are equal, and how they are hashed."""
    with module_of(source) as module:
        try:
            made, again = (eval(call, module.__dict__) for _ in range(2))
        except TypeError:
            return ("TypeError",)
        values = [getattr(made, each.name) for each in dataclasses.fields(made)]
        can_hash = type(made).__hash__ is not None
        same_hash = can_hash and hash(made) == hash(again)
        return (repr(made), values, made == again, can_hash, same_hash)


_CLASSES = {
    "frozen": "@dataclass(frozen=True, slots=True)\nclass A:\n    x: int\n    y: str = 'a'\n",
    "mutable": "@dataclass(slots=True)\nclass A:\n    x: int\n    y: tuple[int, int] = DEFAULT\n",
    "identity": "@dataclass(slots=True, eq=False)\nclass A:\n    x: int\n    y: int = 2\n",
    "frozen identity": "@dataclass(frozen=True, slots=True, eq=False)\nclass A:\n"
    "    '''Has a docstring.'''\n\n    x: int\n    y: int = 2\n\n    def z(self) -> int:\n"
    "        return self.x\n",
    "by name": "@dataclass(slots=True, kw_only=True)\nclass A:\n    y: int = 1\n    x: int\n",
    "made": "@dataclass(frozen=True, slots=True)\nclass A:\n    x: int\n"
    "    y: list[int] = field(default_factory=list, compare=False)\n",
    "hidden": "@dataclass(frozen=True, slots=True)\nclass A:\n    x: int\n"
    "    y: int = field(default=3, repr=False, compare=False)\n",
    "made by a lambda": "@dataclass(slots=True)\nclass A:\n    x: int\n"
    "    y: list[int] = field(default_factory=lambda: [1])\n",
    "two": "@dataclass(slots=True)\nclass B:\n    x: int\n\n\n@dataclass(\n    frozen=True,\n"
    "    slots=True,\n)\nclass A:\n    x: int\n    y: int = 1\n",
}


@pytest.mark.parametrize("source", _CLASSES.values(), ids=_CLASSES)
@pytest.mark.parametrize(
    "call", ["A(1)", "A(x=1)", "A(1, 5)", "A(y=5, x=1)", "A()", "A(1, 2, 3)", "A(1, z=1)"]
)
def test_what_is_made_is_the_same(source: str, call: str) -> None:
    written = with_inits(_HEAD + source, set())
    assert written.count("def __init__") == source.count("@dataclass")
    assert outcome(written, call) == outcome(_HEAD + source, call)


def test_each_gets_a_list_of_its_own() -> None:
    with module_of(with_inits(_HEAD + _CLASSES["made"], set())) as module:
        assert module.A(1).y is not module.A(1).y
        given: list[int] = []
        assert module.A(1, given).y is given


@pytest.mark.parametrize(
    "source",
    [
        "@dataclass(slots=True)\nclass A(Generic[T]):\n    x: T\n",
        "@dataclass(slots=True)\nclass Base:\n    x: int\n",
        "@dataclass(slots=True)\nclass A:\n    x: InitVar[int]\n",
        "@dataclass(slots=True)\nclass A:\n    x: ClassVar[int] = 1\n",
        "@dataclass(slots=True)\nclass A:\n    _: KW_ONLY\n    x: int\n",
        "@dataclass(slots=True)\nclass A:\n    x: int = field(init=False)\n",
        "@dataclass(slots=True)\nclass A:\n    x: int\n    def __post_init__(self): pass\n",
        "@dataclass(slots=True)\nclass A:\n    x: int\n    def __init__(self): pass\n",
        "@dataclass\nclass A:\n    x: int\n",
        "@dataclass(slots=True)\nclass A:\n    pass\n",
        "class A:\n    x: int\n",
    ],
)
def test_what_asks_for_more_is_left_alone(source: str) -> None:
    assert with_inits(_HEAD + source, {"Base"}) == _HEAD + source


def test_bases_are_found_by_their_last_name() -> None:
    assert bases_in("class A(b.B, C): pass\nclass D:\n    class E(A): pass\n") == {"B", "C", "A"}


def test_records_of_the_core_keep_their_parameters() -> None:
    sources = [(ROOT / module).read_text() for module in modules_in(ROOT)]
    bases = set[str]().union(*map(bases_in, sources))
    num_classes = 0
    for source, name in zip(sources, modules_in(ROOT), strict=True):
        original = __import__(name[:-3].replace("/", "."), fromlist=["_"])
        for node in ast.parse(with_inits(source, bases)).body:
            if not isinstance(node, ast.ClassDef) or not node.decorator_list:
                continue
            if not ast.unparse(node.decorator_list[0]).startswith("dataclass(init=False"):
                continue
            init = next(x for x in node.body if getattr(x, "name", "") == "__init__")
            assert isinstance(init, ast.FunctionDef)
            names = [each.arg for each in (*init.args.args[1:], *init.args.kwonlyargs)]
            assert names == list(inspect.signature(getattr(original, node.name)).parameters)
            num_classes += 1
    assert num_classes > 100
