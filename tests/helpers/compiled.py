"""Whether the core under test is compiled (docs/decisions/0031), and what cannot be tested then."""

from __future__ import annotations

from pathlib import Path

import pytest

from parrot_backend.core import coordinator

IS_COMPILED = Path(coordinator.__file__).suffix != ".py"


def needs_python(reason: str) -> None:
    """Skip the test, or the module that is being imported, if the core is compiled."""
    if IS_COMPILED:
        pytest.skip(f"the core is compiled: {reason}", allow_module_level=True)
