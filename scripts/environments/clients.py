"""Tests, and type checks, of the adapters whose frameworks have environments of their own.

python -m scripts.environments.clients test [pytest's options]
python -m scripts.environments.clients types
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scripts.environments.table import CLIENTS, ROOT, ClientEnvironment

#: Returns the command to run for a row, if it has one.
Command = Callable[[ClientEnvironment, Sequence[str]], list[str] | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command for each row of the table; return 1 if one of them failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(given[0]) if given else None
    if command is None:
        print(f"usage: python -m scripts.environments.clients {'|'.join(COMMANDS)}")
        return 2
    missing = [client for client in CLIENTS if not interpreter(client).exists()]
    needed = [client.name for client in missing if not client.is_on_demand]
    if needed:
        print(f"environments are missing: {', '.join(needed)}; run `make setup`", file=sys.stderr)
        return 1
    failed = list(failures(command, given[1:], [each for each in CLIENTS if each not in missing]))
    for client in missing:
        print(
            f"NOT RUN: {client.tests}: there is no {client.folder_name}; "
            "`make test-agents` makes it",
            file=sys.stderr,
        )
    if failed:
        print(f"failed in {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def failures(
    command: Command, options: Sequence[str], clients: Sequence[ClientEnvironment]
) -> Iterator[str]:
    """Run the command in environments and yield the names of those where it fails."""
    for client in clients:
        words = command(client, options)
        if words is None:
            continue
        print(f"== {client.folder_name}", flush=True)
        if subprocess.run(words, cwd=ROOT, check=False).returncode != 0:
            yield client.name


def test_command(client: ClientEnvironment, options: Sequence[str]) -> list[str]:
    """Return the command that runs the tests of a row."""
    return [str(interpreter(client)), "-m", "pytest", client.tests, *options]


def _sources(place: Path) -> Iterator[Path]:
    """Yield the Python files of a folder, or the one file."""
    if place.is_file():
        yield place
    else:
        yield from place.rglob("*.py")


def types_command(client: ClientEnvironment, options: Sequence[str]) -> list[str] | None:
    """Return the command that checks the types of a row's sources, if it has any.

    Mypy is the main environment's; what it knows of packages comes from the row's. It is given
    files, because its configuration excludes the folders: without the framework they do not check.
    """
    files = sorted(
        str(path.relative_to(ROOT)) for name in client.typed for path in _sources(ROOT / name)
    )
    if not files:
        return None
    return [
        *(sys.executable, "-m", "mypy", "--python-executable", str(interpreter(client))),
        *("--cache-dir", f".mypy_cache/{client.name}", *options, *files),
    ]


def interpreter(client: ClientEnvironment) -> Path:
    """Return the Python of a row's environment."""
    return ROOT / client.folder_name / "bin" / "python"


COMMANDS: dict[str, Command] = {"test": test_command, "types": types_command}

if __name__ == "__main__":
    sys.exit(main())
