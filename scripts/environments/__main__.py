"""Create the environments of this checkout and install Parrot into them, editable.

Run by the Makefile with any supported Python; uses the standard library only. In order, for each
environment of ``table``:

1. If the record in its ``setup.json`` says that this very set-up is complete, go on to the next.
   That takes a few milliseconds.
2. Create it. One that was left half installed, or that was made for another Python, engine or
   folder, is emptied first.
3. Install what the table says. The output goes to its ``setup.log``.
4. Import once what is needed most. This proves that the installation works, and writes the byte
   code of those modules, which is quicker than compiling every file of every package.

pip's own configuration (indexes, folders, proxies, certificates) is honoured.

    python -m scripts.environments [--only .venv ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from scripts.environments.explain import SetupError
from scripts.environments.install import install
from scripts.environments.record import is_ready, only_one_setup, read_record
from scripts.environments.table import (
    FIRST_UNSUPPORTED_PYTHON,
    OLDEST_PYTHON,
    Environment,
    environments,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the environments up to date and return the exit status."""
    try:
        check_python()
        known = environments()
        options = parse_arguments(arguments, known)
        for environment in known:
            if not options.only or environment.name in options.only:
                bring_up_to_date(environment, options.torch_index_url)
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next `make setup` starts afresh", file=sys.stderr)
        return 130
    return 0


def bring_up_to_date(environment: Environment, torch_index_url: str) -> None:
    """Install into an environment, unless it is complete."""
    if is_ready(read_record(environment), environment):
        return
    with only_one_setup():
        if not is_ready(read_record(environment), environment):
            install(environment, torch_index_url)


def parse_arguments(
    arguments: Sequence[str] | None, known: Sequence[Environment]
) -> argparse.Namespace:
    """Read the flags; the Makefile passes its variable through the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.environments",
        description="Create environments and install Parrot into them.",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[environment.name for environment in known],
        help=f"bring only these up to date: {', '.join(e.name for e in known)}",
    )
    parser.add_argument(
        "--torch-index-url",
        default=os.environ.get("TORCH_INDEX_URL", ""),
        help="index of PyTorch's CPU wheels, used only if torch is not found without it",
    )
    return parser.parse_args(arguments)


def check_python() -> None:
    """Refuse an interpreter that the project does not support."""
    if OLDEST_PYTHON <= sys.version_info[:2] < FIRST_UNSUPPORTED_PYTHON:
        return
    raise SetupError(
        f"Parrot needs Python 3.11, 3.12 or 3.13; {sys.executable} is {sys.version.split()[0]}.\n"
        "Choose another one with: make setup PYTHON=python3.12"
    )


if __name__ == "__main__":
    sys.exit(main())
