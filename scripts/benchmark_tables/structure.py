"""Tables of discovered structure."""

from __future__ import annotations

from scripts.benchmark_tables.markdown import Row, table


def discovery_table(rows: list[Row]) -> str:
    """Return the discovery benchmark: edges, characters, time and memory of both methods."""
    header = ("traffic", "method", "edges", "found", "false", "known characters")
    return table(
        (*header, "a call, p50", "p99", "memory"),
        (
            (
                *(row[c] for c in ("traffic", "method", "edges", "found", "false")),
                f"{100 * float(row['known_share']):.1f} %",
                f"{row['p50_ms']} ms",
                f"{row['p99_ms']} ms",
                f"{row['session_kib']} KiB",
            )
            for row in rows
        ),
    )


def discovery_server_table(rows: list[Row]) -> str:
    """Return what discovery adds to the times of a server."""
    header = (
        "files",
        "edges",
        "characters",
        "submit, p50",
        "p99",
        "added",
        "end of a call",
        "added",
    )
    return table(
        header,
        (
            (
                *(row[c] for c in ("files", "edges", "prompt_chars")),
                *(f"{row[c]} ms" for c in ("submit_p50_ms_on", "submit_p99_ms_on")),
                *(f"{row[c]} ms" for c in ("added_submit_p50_ms", "end_p50_ms_on")),
                f"{row['added_end_p50_ms']} ms",
            )
            for row in rows
        ),
    )
