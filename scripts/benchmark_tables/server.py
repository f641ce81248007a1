"""Tables of the server: HTTP, single calls, decisions."""

from __future__ import annotations

from scripts.benchmark_tables.markdown import Row, spread, table


def scheduler_table(rows: list[Row]) -> str:
    """Return what a decision and a call cost the core."""
    columns = ("placement", "full_by", "engines", "waiting")
    times = ("decision_p50_us", "decision_p99_us", "submit_p50_us", "call_mean_us")
    header = ("placement", "full by", "engines", "waiting", "decision p50", "p99", "submit p50")
    return table(
        (*header, "call, mean", "decisions/s"),
        (
            (
                *(row[c] for c in columns),
                # Where none is let in, none is submitted.
                *("-" if row[c] == "nan" else f"{float(row[c]):.0f} us" for c in times),
                f"{float(row['decisions_per_s']):.0f}",
            )
            for row in rows
        ),
    )


def simulator_table(rows: list[Row]) -> str:
    """Return what a simulated call takes, and what a million would, or did."""
    header = ("compiled", "engines' rules", "placement", "calls", "a call", "a million", "memory")
    return table(
        header,
        (
            (
                *(row[c] for c in ("compiled", "rules", "placement")),
                f"{int(row['calls']):,}",
                f"{float(row['us_per_call']):.0f} us",
                f"{float(row['us_per_call']) / 60:.1f} min",
                f"{row['peak_mb']} MB",
            )
            for row in rows
        ),
    )


def prefix_index_table(rows: list[Row]) -> str:
    """Return memory and speed of the index of cached prefixes."""
    units = {
        "bytes_per_entry": ("{:.0f} bytes", 1),
        "lookup_us": ("{:.1f} us", 1),
        "requests_per_s": ("{:.0f} requests/s", 1),
        "blocks_per_s": ("{:.0f} blocks/s", 1),
        "hit_share": ("{:.1f} % cached", 100),
        "growth": ("{:.2f} x", 1),
    }
    return table(
        ("what", "case", "engines", "found"),
        (
            (
                *(row[c] for c in ("what", "case", "engines")),
                ", ".join(
                    text.format(factor * float(row[name]))
                    for name, (text, factor) in units.items()
                    if row[name]
                ),
            )
            for row in rows
        ),
    )


def server_table(rows: list[Row]) -> str:
    """Return the newest row of the server benchmark: ours beside a bare FastAPI application."""
    row = rows[-1]
    names = {
        "single_p50_ms": "one call, submit to value, p50 (ms)",
        "single_p99_ms": "the same, p99 (ms)",
        "rate_16_clients_per_s": "submits per second, 16 clients",
        "dependent_p50_ms": "each further dependent call in a submit, p50 (ms)",
    }
    lines = [(text, row[key], row.get(f"bare_{key}", "")) for key, text in names.items()]
    return table(("", "Parrot", "bare FastAPI"), lines)


def langchain_table(rows: list[Row]) -> str:
    """Return the benchmark of single calls: milliseconds of each way, and what ours adds."""
    names = {
        "openai_p50_ms": "`openai`, vLLM's server",
        "chat_openai_p50_ms": "`ChatOpenAI`, vLLM's server",
        "submit_p50_ms": "`ParrotClient.submit`",
        "chat_parrot_p50_ms": "`ChatParrot`",
        "added_ms": "added to `openai`",
    }
    lines = [[row["max_tokens"], *(spread(row, name) for name in names)] for row in rows]
    return table(("tokens", *names.values()), lines)
