"""Ctrl-C in a terminal while a long simulation runs."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def test_what_was_simulated_until_then_is_kept(tmp_path: Path):
    jobs = tmp_path / "jobs.csv"
    command = [sys.executable, "-m", "parrot_backend", "simulate", "--app", "copilot"]
    options = ["--rate", "20", "--engines", "8", "--jobs", "100000", "--placement", "least_loaded"]
    with subprocess.Popen(
        [*command, *options, "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until_s = time.monotonic() + PATIENCE_S
        while not (jobs.exists() and jobs.stat().st_size):
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Interrupted: these are the results until then." in errors
    assert "20/s (partial)" in out
    told = json.loads((tmp_path / "results.json").read_text())
    (row,) = told["rows"]
    assert (told["is_complete"], row["reason"]) == (False, "interrupted")
    with jobs.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == row["jobs"] + row["unfinished"]
    assert 0 < row["jobs"] < 100_000
    assert sum(not one["failed"] for one in rows) == row["jobs"]
