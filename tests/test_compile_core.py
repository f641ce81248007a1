"""What is to be compiled on demand is there, and has nothing that mypyc makes otherwise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from scripts.compile_core import copy_package, modules_in

ROOT = Path(__file__).resolve().parent.parent

#: Bases that give a class another metaclass, or parameters.
_REFUSED = {"ABC", "Generic", "Protocol"}


def refused(source: str) -> Iterator[str]:
    """Yield what cannot be compiled.

    Dataclasses with slots and certain bases; dataclasses with class variables, which become fields;
    functions that catch errors of several types under one name, which has the first type only.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            caught = {
                (x.name, str(x.type and ast.unparse(x.type)))
                for x in ast.walk(node)
                if _is_named(x)
            }
            if len(caught) > len({name for name, _ in caught}):
                yield node.name
        if not isinstance(node, ast.ClassDef):
            continue
        decorators = " ".join(map(ast.unparse, node.decorator_list))
        bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
        if "slots=True" in decorators and bases & _REFUSED:
            yield node.name
        fields = (ast.unparse(x.annotation) for x in node.body if isinstance(x, ast.AnnAssign))
        if "dataclass" in decorators and any(each.startswith("ClassVar") for each in fields):
            yield node.name


def _is_named(node: ast.AST) -> TypeGuard[ast.ExceptHandler]:
    return isinstance(node, ast.ExceptHandler) and node.name is not None


_CATCHES = "    try: pass\n    except A as {}: pass\n    except B as {}: pass"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("@dataclass(slots=True)\nclass A(Generic[T]): pass", ["A"]),
        ("@dataclass(slots=True)\nclass A(B, ABC): pass", ["A"]),
        ("@dataclass(slots=True)\nclass A(B): pass\nclass C(Generic[T]): pass", []),
        (
            "@dataclass\nclass A:\n    x: ClassVar[int] = 1\nclass C:\n    x: ClassVar[int] = 1",
            ["A"],
        ),
        (f"def f():\n{_CATCHES.format('a', 'b')}", []),
        (f"def f():\n{_CATCHES.format('a', 'a')}", ["f"]),
    ],
)
def test_what_cannot_be_compiled_is_found(source: str, found: list[str]) -> None:
    assert list(refused(source)) == found


def test_nothing_is_compiled_that_cannot_be() -> None:
    modules = modules_in(ROOT)
    assert len(modules) == len(set(modules)) > 100
    assert {m: names for m in modules if (names := list(refused((ROOT / m).read_text())))} == {}


def test_a_copy_holds_all_sources_and_nothing_stale(tmp_path: Path) -> None:
    stale = tmp_path / "parrot_backend" / "core" / "coordinator.so"
    stale.parent.mkdir(parents=True)
    stale.touch()
    copy_package(ROOT, tmp_path)
    assert not stale.exists()
    assert modules_in(tmp_path) == modules_in(ROOT)
    assert all((tmp_path / module).is_file() for module in modules_in(tmp_path))
