"""Simulate the evaluation and write ``docs/evaluation.md``.

python -m benchmarks.evaluation [NAME ...] [--report-only]
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from benchmarks.evaluation.catalogue import EXPERIMENTS
from benchmarks.evaluation.report import write
from benchmarks.evaluation.results import Results
from benchmarks.evaluation.run import simulate


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument("--report-only", action="store_true", help="write the page of known rows")
    arguments = parser.parse_args()
    console = Console()
    is_complete = True
    if not arguments.report_only:
        is_complete = simulate(arguments.names or list(EXPERIMENTS), console)
    missing = write(Results.read())
    if missing:
        console.print(f"no results yet: {', '.join(missing)}")
    return 0 if is_complete else 130


if __name__ == "__main__":
    sys.exit(main())
