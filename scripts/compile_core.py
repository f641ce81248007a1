"""Compiles the core and the simulated engines with mypyc: the same code, twice as fast.

    python -m scripts.compile_core [--out build/compiled] [--flags="-O1 -g0"]

A copy of the package is made and compiled in a folder of its own, so that what is installed stays
plain Python, and no stale module can hide a changed source. Whoever puts the folder first on the
path runs what is compiled (docs/decisions/0031). It needs a C compiler, and takes minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup  # type: ignore[import-untyped]

from scripts.compiled_inits import bases_in, with_inits

_PACKAGE = "parrot_backend"

#: Generic dataclasses with slots, which mypyc cannot make; and what builds on them.
_LEFT_IN_CORE = frozenset({"pacing", "waiting", "waiting_lane", "waiting_tenants"})

#: What runs for each event of a simulation. Clients and sinks have subclasses in Python elsewhere,
#: which a compiled class cannot have.
_OF_SIM = (
    *("attempts", "delays", "engine", "engine_checks", "engine_keeper", "engine_live"),
    *("engine_machine", "engine_parrot", "engine_queue", "engine_room", "engine_seam"),
    *("engine_vllm", "event_loop", "fleet", "jobs", "joining", "kv_cache", "kv_names", "kv_node"),
    *("kv_pins", "latency", "plan", "program", "shell", "spec", "submits", "texts"),
)


def modules_in(folder: Path) -> list[str]:
    """Return the files to compile, relative to the folder that holds the package."""
    core = sorted((folder / _PACKAGE / "core").rglob("*.py"))
    chosen = [file for file in core if file.stem not in _LEFT_IN_CORE | {"__init__"}]
    chosen += [folder / _PACKAGE / "sim" / f"{name}.py" for name in _OF_SIM]
    return [str(file.relative_to(folder)) for file in chosen]


def copy_package(source: Path, folder: Path) -> None:
    """Put a fresh copy of the package into a folder; anything compiled there before is gone."""
    target = folder / _PACKAGE
    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(source / _PACKAGE, target, ignore=ignored)


def write_inits(folder: Path) -> None:
    """Write out the methods of dataclasses in what is to be compiled."""
    sources = {folder / module: (folder / module).read_text() for module in modules_in(folder)}
    bases = set().union(*map(bases_in, sources.values()))
    for path, source in sources.items():
        path.write_text(with_inits(source, bases))


def compile_in(folder: Path, settings: Path, flags: str) -> None:
    """Compile the copy where it is.

    Args:
        folder: Holds the package.
        settings: Those of mypy.
        flags: Of the C compiler; its time doubles with ``-O3`` and the result is hardly faster.
    """
    os.chdir(folder)
    for stale in folder.glob("*.so"):
        stale.unlink()
    os.environ["CFLAGS"] = f"{flags} -w {os.environ.get('CFLAGS', '')}".strip()
    arguments = ["--config-file", str(settings), *modules_in(folder)]
    extensions = mypycify(arguments, group_name="parrot", multi_file=True)
    setup(
        name="parrot-compiled",
        packages=[],
        ext_modules=extensions,
        script_args=["--quiet", "build_ext", "--inplace", "--force"],
    )


def main() -> None:
    """Copy, compile, and say how to use it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/compiled"))
    parser.add_argument("--flags", default="-O1 -g0")
    options = parser.parse_args()
    source, folder = Path(__file__).resolve().parent.parent, options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    copy_package(source, folder)
    write_inits(folder)
    compile_in(folder, source / "pyproject.toml", options.flags)
    print(f"compiled; run it with PYTHONPATH={folder}, and python with -P")


if __name__ == "__main__":
    main()
