"""The shape of the code base: sizes, docstrings, public names, and codes against their page."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("parrot_backend", "parrot_integrations")

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60

#: File -> reason why it may be longer.
LONG_FILES = {
    "parrot_backend/core/coordinator.py": "one method per event; a split would hide the table",
}

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("name", _names(SOURCES))
def test_a_file_has_a_docstring_and_stays_short(name: str) -> None:
    text = (ROOT / name).read_text()
    assert ast.get_docstring(ast.parse(text)), f"{name} has no module docstring"
    if name not in LONG_FILES:
        assert len(text.splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("name", _names(SOURCES))
def test_functions_stay_short(name: str) -> None:
    for function in _functions(ast.parse((ROOT / name).read_text())):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < MAX_FUNCTION_LINES, function.name


def test_the_list_of_long_files_is_not_stale() -> None:
    for name in LONG_FILES:
        assert len((ROOT / name).read_text().splitlines()) > MAX_FILE_LINES, name


def test_public_names_exist_and_are_complete() -> None:
    module = importlib.import_module("parrot_integrations")
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


def _documented_codes() -> set[str]:
    page = (ROOT / "docs/http_api.md").read_text().partition("## Errors")[2]
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return {code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)}


def _raised_codes() -> set[str]:
    """Return the string literals given as the code to errors, failures and failed requests."""
    code_position = {
        **dict.fromkeys(("RequestError", "CapacityError", "TemplateError", "InternalError"), 0),
        **dict.fromkeys(("EngineError", "Failure"), 0),
        "RequestFailed": 1,
    }
    codes = set[str]()
    for path in (ROOT / "parrot_backend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else None
            name = node.func.id if isinstance(node.func, ast.Name) else name
            given = [*node.args[code_position.get(name or "", 99) :][:1]]
            given += [k.value for k in node.keywords if k.arg == "code"]
            if name in code_position:
                codes |= {
                    c.value
                    for value in given
                    for c in ast.walk(value)
                    if isinstance(c, ast.Constant) and isinstance(c.value, str)
                }
    return codes


#: Raised only inside the process, never to a client.
_INTERNAL_CODES = {"engine_exists", "engine_start_failed", "invalid_engine"}


def test_every_code_that_is_raised_is_documented() -> None:
    assert _raised_codes() - _INTERNAL_CODES <= _documented_codes()


def test_the_page_names_every_endpoint_of_the_server() -> None:
    from fastapi.routing import APIRoute

    from parrot_backend.server.routes import create_router

    page = (ROOT / "docs/http_api.md").read_text()
    for route in create_router().routes:
        assert isinstance(route, APIRoute)
        for method in route.methods:
            path = re.sub(r"\{[a-z_]+(:path)?\}", "{id}", route.path)
            assert f"`{method} {path}`" in page
