"""Says where the tests run that this environment cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.environments.table import CLIENT_FOLDER, CLIENTS, ROOT


def pytest_report_header() -> list[str]:
    """Name the environments of the folders that are not collected here."""
    if Path(sys.prefix).parent == ROOT / CLIENT_FOLDER:
        return []
    names: dict[str, list[str]] = {}
    for client in CLIENTS:
        names.setdefault(client.tests, []).append(f"{CLIENT_FOLDER}/{client.name}")
    return [
        f"elsewhere: {tests} runs in {', '.join(found)} (make test-clients)"
        for tests, found in names.items()
    ]
