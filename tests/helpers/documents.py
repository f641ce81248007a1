"""Python in documents: found by what it holds, and run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: The address of ``parrot serve`` in documents.
DOCUMENTED_URL = "http://127.0.0.1:8642"

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: As ``python -m asyncio`` does it: ``await`` may stand outside of functions.
_RUN = """
import ast, asyncio, inspect, sys
code = compile(sys.argv[1], "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
found = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(found):
    asyncio.run(found)
"""


def snippet(document: str, holds: str) -> str:
    """Return the one block of Python in a document that holds a text."""
    (found,) = (block for block in snippets(document) if holds in block)
    return found


def snippets(document: str) -> list[str]:
    """Return all blocks of Python in a document."""
    return _BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


def run_snippet(code: str, url: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a block against a server, in this Python and at the repository's root.

    Args:
        code: As the document has it.
        url: Stands in for the address of the server.
        environment: Variables that are set besides.

    Returns:
        What it printed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _RUN, code.replace(DOCUMENTED_URL, url)],
        cwd=ROOT,
        env={**os.environ, **(environment or {}), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
