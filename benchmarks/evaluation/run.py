"""Simulates all points, on all cores, and keeps what is there when it is interrupted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from benchmarks.evaluation.catalogue import EXPERIMENTS, measure
from benchmarks.evaluation.experiment import Measured, Point
from benchmarks.evaluation.results import Results


def simulate(names: Sequence[str], console: Console, num_processes: int | None = None) -> bool:
    """Simulate the points of experiments and write the table.

    Args:
        names: Of the experiments; rows of others stay as they are.
        console: Where progress is shown.
        num_processes: At once; None for as many as there are cores.

    Returns:
        Whether all points were simulated. On an interrupt (Ctrl-C) the rest keeps earlier rows.

    Raises:
        ValueError: There is no such experiment.
    """
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise ValueError(f"no experiment {unknown[0]!r}; there are: {', '.join(EXPERIMENTS)}")
    results = Results.read()
    points = [point for name in names for point in EXPERIMENTS[name].points()]
    order = [point for each in EXPERIMENTS.values() for point in each.points()]
    begun_s = time.perf_counter()
    is_complete = True
    with (
        ProcessPoolExecutor(num_processes or os.cpu_count()) as pool,
        Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as shown,
    ):
        task = shown.add_task("simulating", total=len(points))
        pending: dict[Future[Measured], Point] = {pool.submit(measure, p): p for p in points}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    results.points[pending.pop(future)] = future.result()
                    shown.advance(task)
                results.write(order)
        except KeyboardInterrupt:
            is_complete = False
            pool.shutdown(wait=False, cancel_futures=True)
    elapsed_s = time.perf_counter() - begun_s
    console.print(f"{len(points) - len(pending)} of {len(points)} points in {elapsed_s:.0f} s")
    return is_complete
