"""Lets metagpt 0.8.2 be imported without the packages that it imports and seldom uses.

It imports the SDK of every vendor, browsers, data science and document readers when any part of it
is imported. A package of ``STUBBED`` that is not installed becomes an inert module; one that is
installed is used. Roles and tools of MetaGPT that need one of them (its DataInterpreter, its web
tools, stock Engineers with git repositories) do not work on stubs: install what they need.

Import this before ``metagpt``.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any, ClassVar

STUBBED = frozenset(
    {
        *("PIL", "anthropic", "boto3", "botocore", "bs4", "dashscope", "docx", "faiss", "google"),
        *("gymnasium", "imap_tools", "joblib", "lancedb", "nbclient", "nbformat", "numpy"),
        *("pandas", "playwright", "qianfan", "redis", "rich", "sklearn", "sparkai"),
        *("tree_sitter", "tree_sitter_python", "volcenginesdkarkruntime", "volcenginesdkcore"),
        "zhipuai",
    }
)


class _Inert(type):
    """A class that has every attribute, and may stand in annotations and as a decorator."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _make(name)

    def __getitem__(cls, _key: object) -> Any:
        return cls

    def __or__(cls, _other: object) -> Any:
        return cls

    __ror__ = __or__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        is_decorated = len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType)
        return args[0] if is_decorated else super().__call__()


def _make(name: str) -> Any:
    if name.endswith(("Error", "Exception")):
        return type(name, (Exception,), {})

    def schema(_cls: type, _source: object, _handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()

    return _Inert(name, (), {"__get_pydantic_core_schema__": classmethod(schema)})


class _Module(types.ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _make(name)
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in STUBBED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


# Last: a package that is really installed is found before.
sys.meta_path.append(_Finder())
