"""Shared-prefix attention on a GPU: checks it, measures the chip, and compares.

    python -m benchmarks.bench_attention_gpu [--seconds 540]
    python -m benchmarks.bench_attention_gpu --dry-run

Claims to be tested: at least 75 % of the bound at prefixes of 6k and more, 1.5 x FlashInfer's
cascade on trees with several groups, at most 2 % lost where nothing is shared. In order: our
kernels on a few shapes against float64; bandwidth of memory and L2 cache, and rate of matrix
multiplication; then all contenders on each shape until the time is over, every output checked. The
bound of a shape is the larger of reading each of its bytes once at the measured bandwidth and
multiplying all at the measured rate. Rows go to ``results/attention_gpu.csv``.

The dry run takes tiny shapes through the same code in Triton's interpreter. It times nothing and
writes nothing. It is also what happens where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--dry-run", action="store_true", help="check the harness; time nothing")
    made.add_argument("--seconds", type=float, default=540, help="stop beginning shapes after this")
    made.add_argument(
        "--no-rows", action="store_true", help="leave results/attention_gpu.csv alone"
    )
    return made


def main() -> int:
    """Run; return 1 if an output was wrong."""
    given = parser().parse_args()
    started_s = time.monotonic()
    import torch

    if not torch.cuda.is_available() and not given.dry_run:
        print("no GPU: a dry run, which times nothing")
        given.dry_run = True
    if given.dry_run:
        # Triton reads it once, when the kernels are imported.
        os.environ["TRITON_INTERPRET"] = "1"
    from benchmarks.attention_gpu.session import Session
    from benchmarks.attention_gpu.shapes import shapes, tiny_shapes

    session = Session(is_dry=given.dry_run, ends_s=started_s + given.seconds)
    session.check()
    if not given.dry_run:
        session.measure_chip()
    session.compare(tiny_shapes() if given.dry_run else shapes())
    return session.finish(writes_rows=not (given.dry_run or given.no_rows))


if __name__ == "__main__":
    sys.exit(main())
