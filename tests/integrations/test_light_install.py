"""The client side needs no framework; an adapter needs only its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FRAMEWORKS = (
    *("langchain_core", "langgraph", "semantic_kernel", "agent_framework"),
    *("openai", "vllm", "torch", "fastapi"),
)


@pytest.mark.parametrize(
    ("module", "needs"),
    [
        ("parrot_integrations", set()),
        ("parrot_integrations.planning.direct", set()),
        ("parrot_integrations.langchain", {"langchain_core"}),
        ("parrot_integrations.agent_framework", {"agent_framework"}),
    ],
)
def test_what_an_import_brings(module: str, needs: set[str]) -> None:
    code = f"import sys, {module}; print(*(n for n in {_FRAMEWORKS!r} if n in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(found) == needs
