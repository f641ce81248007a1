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

import sys

OLDEST_PYTHON = (3, 11)
FIRST_UNSUPPORTED_PYTHON = (3, 14)


def main() -> int:
    """Refuse an interpreter that the project does not support; with another, do the work."""
    if not OLDEST_PYTHON <= sys.version_info[:2] < FIRST_UNSUPPORTED_PYTHON:
        print(
            f"\nset-up: Parrot needs Python 3.11, 3.12 or 3.13; {sys.executable} is "
            f"{sys.version.split()[0]}.\nChoose another one with: make setup PYTHON=python3.12",
            file=sys.stderr,
        )
        return 1
    # Older interpreters could not even import it.
    from scripts.environments.run import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
