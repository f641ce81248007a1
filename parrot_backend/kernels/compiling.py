"""Builds the package's C++ sources into shared libraries, on first use and once per user.

A library is found by the hash of its sources and flags, and of the compiler if there is one. So it
is never stale, and a new version of the package builds its own. It is built in a folder of its own
and moved to its place in one step: processes that build at the same time do the work twice, and
neither sees half a file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from parrot_backend.kernels.errors import CompilerUnavailable

#: Longest that one run of the compiler may take.
_TIMEOUT_S = 300.0
_COMPILERS = ("g++", "c++", "clang++")
#: No contraction: results do not depend on which instructions a compiler likes to fuse.
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden")


@dataclass(frozen=True, slots=True)
class Unit:
    """A source file that is compiled by itself.

    Attributes:
        source: The file.
        flags: Flags beside those that all files have, such as an instruction set.
        name: Of its object file; units may share a source with other flags.
    """

    source: Path
    flags: tuple[str, ...] = ()
    name: str = ""

    @property
    def object_name(self) -> str:
        """File name of the compiled unit."""
        return f"{self.name or self.source.stem}.o"


def compile_library(
    name: str,
    units: Sequence[Unit],
    *,
    headers: Sequence[Path] = (),
    link_flags: Sequence[str] = (),
) -> Path:
    """Return a shared library of some sources, built unless it was built before.

    The compiler is ``$CXX`` if that is set, else the first of g++, c++ and clang++. Libraries are
    kept under ``$PARROT_CACHE_DIR``, else ``$XDG_CACHE_HOME/parrot``, else ``~/.cache/parrot``; one
    that is there already is used without a compiler, too.

    Args:
        name: Beginning of the file's name.
        units: What to compile; object names must differ.
        headers: What the sources include of ours.
        link_flags: Flags of the last step.

    Raises:
        CompilerUnavailable: There is no compiler, it failed (the message ends with what it said),
            or there is no place to write to.
    """
    cache = _cache_folder()
    try:
        stem = f"{name}-{_source_key(units, headers, link_flags)}"
        compiler = _compiler()
        if compiler is None:
            return _built_elsewhere(cache, stem)
        library = cache / f"{stem}-{_compiler_key(compiler)}.so"
        if library.exists():
            return library
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as folder:
            _build(compiler, units, link_flags, Path(folder) / library.name)
            os.replace(Path(folder) / library.name, library)
    except OSError as error:
        raise CompilerUnavailable(f"cannot write {name} to {cache}: {error}") from error
    return library


def open_library(path: Path) -> ctypes.CDLL:
    """Load what :func:`compile_library` returned.

    Raises:
        CompilerUnavailable: The system refuses, as it does where nothing may be executed.
    """
    try:
        return ctypes.CDLL(os.fspath(path))
    except OSError as error:
        raise CompilerUnavailable(f"cannot load {path}: {error}") from error


def _names_of_compilers() -> tuple[str, ...]:
    return (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS


def _compiler() -> str | None:
    """Return the path of the compiler; None if there is none."""
    return next((path for path in map(shutil.which, _names_of_compilers()) if path), None)


def _built_elsewhere(cache: Path, stem: str) -> Path:
    """Return the newest library of these sources, whatever compiler made it.

    Raises:
        CompilerUnavailable: There is none.
    """
    found = max(cache.glob(f"{stem}-*.so"), key=lambda path: path.stat().st_mtime_ns, default=None)
    if found is None:
        names = ", ".join(_names_of_compilers())
        raise CompilerUnavailable(f"no C++ compiler was found: {names}")
    return found


def _cache_folder() -> Path:
    """Return where libraries are kept.

    Raises:
        CompilerUnavailable: Nothing tells where.
    """
    if own := os.environ.get("PARROT_CACHE_DIR"):
        return Path(own) / "kernels"
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise CompilerUnavailable(f"{error}: set PARROT_CACHE_DIR") from error
    return Path(base) / "parrot" / "kernels"


def _source_key(units: Sequence[Unit], headers: Sequence[Path], link_flags: Sequence[str]) -> str:
    """Return a hash of all that a library is made of."""
    parts = [repr((_FLAGS, tuple(link_flags), platform.machine())).encode()]
    parts += [repr((unit.object_name, unit.flags)).encode() for unit in units]
    parts += [path.read_bytes() for path in (*(unit.source for unit in units), *headers)]
    return _hash(parts, 12)


def _compiler_key(compiler: str) -> str:
    """Return a hash of a compiler: an update makes libraries anew."""
    state = Path(compiler).resolve().stat()
    return _hash([repr((compiler, state.st_size, state.st_mtime_ns)).encode()], 4)


def _hash(parts: Sequence[bytes], size_bytes: int) -> str:
    digest = hashlib.blake2b(digest_size=size_bytes)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _build(compiler: str, units: Sequence[Unit], link_flags: Sequence[str], library: Path) -> None:
    """Compile the units, as many at once as there are cores, and link them."""
    objects = [library.parent / unit.object_name for unit in units]

    def compile_unit(unit: Unit) -> None:
        target = library.parent / unit.object_name
        _run([compiler, *_FLAGS, *unit.flags, "-c", str(unit.source), "-o", str(target)])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(compile_unit, units))
    _run([compiler, "-shared", "-o", str(library), *map(str, objects), *link_flags])


def _run(command: Sequence[str]) -> None:
    """Run the compiler.

    Raises:
        CompilerUnavailable: It failed, or took too long.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CompilerUnavailable(f"{command[0]} took longer than {_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise CompilerUnavailable(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
