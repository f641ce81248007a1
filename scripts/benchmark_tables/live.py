"""Tables of runs on real servers: placements beside each other, simulations beside live runs."""

from __future__ import annotations

from scripts.benchmark_tables.markdown import Row, ratio, seconds, table


def placement_table(rows: list[Row]) -> str:
    """Return mean times of jobs by load, engines and placement."""
    header = ("load", "jobs", "engines", "placement", "mean of jobs", "faster", "cached", "busiest")
    return table(
        header,
        [
            (
                row["load"],
                row["app"],
                row["engines"],
                row["placement"],
                seconds(row, "mean_job_s"),
                ratio(row, "faster"),
                f"{float(row['cached']):.0%}",
                f"{float(row['busiest']):.0%}",
            )
            for row in rows
        ],
    )


def validation_table(rows: list[Row]) -> str:
    """Return times of jobs live and simulated, and by how much the latter are off."""
    off = ("mean", "median", "P90", "a job", "a job, either way")
    return table(
        ("run", "engines", "calibrated", "jobs", "number", "mean, live", *off),
        [
            (
                row["seed"],
                row["engines"],
                row["calibrated"],
                row["app"],
                row["jobs"],
                f"{float(row['live_mean_s']):.3f} s",
                *(f"{float(row[f'{name}_off']):+.1%}" for name in ("mean", "median", "p90")),
                f"{float(row['job_off_median']):+.1%}",
                f"{float(row['job_abs_off_median']):.1%}",
            )
            for row in rows
        ],
    )
