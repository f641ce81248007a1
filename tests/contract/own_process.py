"""Runs a module that makes engines of vLLM in a process of its own, with one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "PYTHONPATH": str(_ROOT),
}


def run_module(module: str, file: Path, names: Sequence[str]) -> Path:
    """Run a module that writes what it found of some cases into a file; return the file."""
    done = subprocess.run(
        [sys.executable, "-m", module, file, *names],
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
        cwd=file.parent,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return file
