from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parrot_backend.kernels import CompilerUnavailable, Planner, compiling
from parrot_backend.kernels.compiling import Unit, compile_library, open_library
from parrot_backend.kernels.native_plan import load_library

_SOURCE = """
#include "number.h"
extern "C" __attribute__((visibility("default"))) int number() { return NUMBER + FLAG; }
"""


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unit:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "number.h").write_text("#define NUMBER 40\n")
    (tmp_path / "number.cpp").write_text(_SOURCE)
    return Unit(tmp_path / "number.cpp", ("-DFLAG=2",))


def number_of(library: Path) -> int:
    number: int = ctypes.CDLL(str(library)).number()
    return number


def test_a_library_is_built_once(unit: Unit) -> None:
    headers = [unit.source.parent / "number.h"]
    first = compile_library("number", [unit], headers=headers)
    built = first.stat().st_mtime_ns
    assert number_of(first) == 42
    assert compile_library("number", [unit], headers=headers) == first
    assert first.stat().st_mtime_ns == built
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_what_it_is_made_of_makes_another_library(unit: Unit) -> None:
    header = unit.source.parent / "number.h"
    first = compile_library("number", [unit], headers=[header])
    other_flags = Unit(unit.source, ("-DFLAG=3",))
    assert number_of(compile_library("number", [other_flags], headers=[header])) == 43
    header.write_text("#define NUMBER 50\n")
    second = compile_library("number", [unit], headers=[header])
    assert (number_of(first), number_of(second)) == (42, 52)


def test_a_source_that_does_not_compile_says_why(unit: Unit) -> None:
    unit.source.write_text("int broken( { }")
    with pytest.raises(CompilerUnavailable, match="error: ") as caught:
        compile_library("number", [unit])
    assert caught.value.code == "attention_no_compiler"
    folder = Path(os.environ["PARROT_CACHE_DIR"]) / "kernels"
    assert list(folder.iterdir()) == []


def test_without_a_compiler_it_says_so(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilerUnavailable, match="no-such-compiler"):
        compile_library("number", [unit])


def test_what_was_built_before_needs_no_compiler(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose image was made where there is one."""
    built = compile_library("number", [unit], headers=[unit.source.parent / "number.h"])
    monkeypatch.setenv("CXX", "no-such-compiler")
    header = unit.source.parent / "number.h"
    assert compile_library("number", [unit], headers=[header]) == built
    header.write_text("#define NUMBER 50\n")
    with pytest.raises(CompilerUnavailable, match="no-such-compiler"):
        compile_library("number", [unit], headers=[header])


def test_another_compiler_makes_another_library(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    headers = [unit.source.parent / "number.h"]
    first = compile_library("number", [unit], headers=headers)
    other = tmp_path / "other-compiler"
    other.write_text(f'#!/bin/sh\nexec "{compiling._compiler()}" "$@"\n')
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    second = compile_library("number", [unit], headers=headers)
    assert second != first
    assert number_of(second) == 42


def test_a_folder_that_cannot_be_written_is_told(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(unit.source))
    with pytest.raises(CompilerUnavailable, match="cannot write"):
        compile_library("number", [unit])


def test_a_folder_that_may_not_be_looked_into_is_told(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(CompilerUnavailable, match="Permission denied"):
        compile_library("number", [unit])


def test_a_user_without_a_home_is_told(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PARROT_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(CompilerUnavailable, match=r"home directory.*PARROT_CACHE_DIR"):
        compile_library("number", [unit])


def test_a_library_that_the_system_refuses_is_told(tmp_path: Path) -> None:
    library = tmp_path / "broken.so"
    library.write_bytes(b"")
    with pytest.raises(CompilerUnavailable, match="cannot load"):
        open_library(library)


def test_processes_may_build_at_the_same_time(unit: Unit) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from parrot_backend.kernels.compiling import Unit, compile_library\n"
        "source = Path(sys.argv[1])\n"
        "unit = Unit(source, ('-DFLAG=2',))\n"
        "print(compile_library('number', [unit], headers=[source.parent / 'number.h']))\n"
    )
    command = [sys.executable, "-c", program, str(unit.source)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=100)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(said) == 1
    assert number_of(Path(said.pop())) == 42


def test_without_a_compiler_numpy_plans_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    load_library.cache_clear()
    with caplog.at_level(logging.WARNING):
        planner = Planner(16, 2)
    load_library.cache_clear()
    assert not planner.is_native
    assert "no-such-compiler" in caplog.text
    plan = planner.plan(np.array([[1]]), np.array([0, 1]), np.array([5]))
    assert plan.plain_tokens == 5
