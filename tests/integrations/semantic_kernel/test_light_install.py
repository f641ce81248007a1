"""The client side needs Semantic Kernel, and neither server nor engine."""

from __future__ import annotations

import subprocess
import sys

_OURS = "parrot_backend.protocol", "parrot_backend.closed_set"
_HEAVY = "vllm", "torch", "fastapi", "uvicorn", "langchain_core", "google.protobuf"
_CODE = "import sys, parrot_integrations.semantic_kernel; print(*sys.modules)"


def test_what_an_import_brings() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "semantic_kernel" in found
    assert not set(_HEAVY) & set(found)
    backend = [name for name in found if name.startswith("parrot_backend.")]
    assert all(name.startswith(_OURS) for name in backend)
