"""Says where the tests run that this environment cannot run, and explains shared assertions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.environments.table import CLIENT_FOLDER, CLIENTS, ROOT

# Other folders' tests import it, too, so a conftest of its own folder would come too late.
pytest.register_assert_rewrite("tests.kernels.batches")


def pytest_report_header() -> list[str]:
    """Name the environments of the folders that are not collected here."""
    if Path(sys.prefix).parent == ROOT / CLIENT_FOLDER:
        return []
    names: dict[str, list[str]] = {}
    for client in CLIENTS:
        target = "make test-agents" if client.is_on_demand else "make test-clients"
        names.setdefault(client.tests, []).append(f"{client.folder_name} ({target})")
    return [f"elsewhere: {tests} runs in {', '.join(found)}" for tests, found in names.items()]
