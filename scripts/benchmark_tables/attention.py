"""The table of shared-prefix attention inside vLLM."""

from __future__ import annotations

from scripts.benchmark_tables.markdown import Row, spread, table


def attention_table(rows: list[Row]) -> str:
    """Return the table; of each model and shape the newest row."""
    header = ["model", "batch", "vLLM, ms", "shared, ms", "faster", "bound, ms"]
    newest = {(row["model"], row["shape"]): row for row in rows}
    return table(
        header,
        [
            [
                row["model"],
                row["shape"],
                spread(row, "stock_ms"),
                spread(row, "shared_ms"),
                f"{float(row['ratio']):.2f} x",
                f"{float(row['bound_ms']):.3g}",
            ]
            for _, row in sorted(newest.items())
        ],
    )
