"""Tables of whole programs."""

from __future__ import annotations

from scripts.benchmark_tables.markdown import Row, ratio, seconds, spread, table


def chain_table(rows: list[Row]) -> str:
    """Return the chain benchmark: what one submit gains, and its distance to the bound."""
    header = ("round trip", "tokens a call", "call by call", "one submit", "faster", "time / bound")
    return table(
        header,
        (
            (
                f"{row['round_trip_ms']} ms",
                row["max_tokens"],
                seconds(row, "call_by_call_s"),
                seconds(row, "one_submit_s"),
                ratio(row, "speedup"),
                ratio(row, "time_over_bound"),
            )
            for row in rows
        ),
    )


def map_reduce_table(rows: list[Row]) -> str:
    """Return the map-reduce benchmark; the baseline sends 4 calls at a time, or all at once."""
    header = ("round trip", "maps", "baseline's calls at once", "call by call", "one submit")
    return table(
        (*header, "faster", "time / bound"),
        (
            (
                f"{row['round_trip_ms']} ms",
                row["maps"],
                row["at_once"] if row["at_once"] != "0" else "all",
                seconds(row, "call_by_call_s"),
                seconds(row, "one_submit_s"),
                ratio(row, "speedup"),
                ratio(row, "time_over_bound"),
            )
            for row in rows
        ),
    )


def programs_table(rows: list[Row]) -> str:
    """Return a framework's programs in their three ways."""
    header = (
        *("program", "round trip", "call by call", "drop-in", "planned", "requests"),
        *("faster", "planned / bound"),
    )
    return table(
        header,
        (
            (
                row["program"].replace("_", " "),
                f"{row['round_trip_ms']} ms",
                seconds(row, "call_by_call_s"),
                seconds(row, "drop_in_s"),
                seconds(row, "planned_s"),
                f"{row['call_by_call_requests']} / {row['planned_requests']}",
                ratio(row, "speedup"),
                over_bound(row),
            )
            for row in rows
        ),
    )


def over_bound(row: Row) -> str:
    """Return how many times the bound the planned run takes, where there is a bound."""
    if not row["bound_s_median"]:
        return ""
    return f"{float(row['planned_s_median']) / float(row['bound_s_median']):.2f}"


def planning_table(rows: list[Row]) -> str:
    """Return what planning a chain costs, on an engine that answers at once."""
    header = ("program", "calls", "planning, ms", "plain, ms", "planned, ms", "submits")
    return table(
        header,
        (
            (
                row["program"].replace("_", " "),
                row["calls"],
                *(spread(row, f"{name}_ms") for name in ("planning", "plain", "planned")),
                f"{row['plain_submits']} / {row['planned_submits']}",
            )
            for row in rows
        ),
    )
