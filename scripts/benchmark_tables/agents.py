"""Tables of agents: OpenAI's endpoint, MetaGPT's teams, and what discovered structure brings."""

from __future__ import annotations

from scripts.benchmark_tables.markdown import Row, ratio, spread, table


def openai_table(rows: list[Row]) -> str:
    """Return what Parrot's endpoint adds to vLLM's own server."""
    header = (
        *("chats", "tokens", "at once", "vLLM, p50 (ms)", "added", "added to the first event"),
        *("throughput / vLLM's", "processor a request, vLLM (ms)", "Parrot (ms)"),
    )
    return table(
        header,
        (
            (
                "streamed" if row["stream"] == "1" else "whole",
                row["tokens"],
                row["concurrency"],
                spread(row, "vllm_p50_ms"),
                spread(row, "added_p50_ms"),
                spread(row, "added_first_p50_ms"),
                f"{float(row['throughput_ratio_median']):.3f} "
                f"[{float(row['throughput_ratio_p20']):.3f}, "
                f"{float(row['throughput_ratio_p80']):.3f}]",
                spread(row, "vllm_cpu_ms"),
                spread(row, "parrot_cpu_ms"),
            )
            for row in rows
        ),
    )


def metagpt_table(rows: list[Row]) -> str:
    """Return the times of MetaGPT's teams in each way, beside each load."""
    header = (
        *("engine", "files", "load", "way", "mean of teams, s", "faster", "time / bound"),
        *("prompt tokens computed", "of", "bulk calls/s", "a bulk call, s"),
    )
    return table(
        header,
        (
            (
                row["engine"],
                row["num_files"],
                row["load"],
                row["way"],
                spread(row, "mean_job_s"),
                ratio(row, "speedup"),
                ratio(row, "over_bound") if row["over_bound_median"] else "-",
                row["computed_tokens"] or "-",
                row["prompt_tokens"],
                spread(row, "bulk_per_s") if row["bulk_s_median"] else "-",
                spread(row, "bulk_s"),
            )
            for row in rows
        ),
    )


def discovery_gain_table(rows: list[Row]) -> str:
    """Return what discovered structure changes for agents on real engines."""
    header = (
        *("traffic", "engines", "discovery", "mean of runs, s", "faster"),
        *("prompt tokens computed", "of"),
    )
    return table(
        header,
        (
            (
                *(row[column] for column in ("traffic", "engines", "discovery")),
                spread(row, "mean_job_s"),
                ratio(row, "speedup"),
                _computed(row),
                row["prompt_tokens"],
            )
            for row in rows
        ),
    )


def discovery_pins_table(rows: list[Row]) -> str:
    """Return what is won by keeping what calls that are forecast begin with."""
    header = (
        *("traffic", "runs", "pins", "prompt tokens computed", "of", "computed, share of off"),
        *("mean of runs, s", "faster", "bulk calls a second"),
    )
    return table(
        header,
        (
            (
                *(row[column] for column in ("traffic", "runs_at_once", "pins")),
                _computed(row),
                row["prompt_tokens"],
                ratio(row, "computed_ratio"),
                spread(row, "mean_job_s"),
                ratio(row, "speedup"),
                spread(row, "bulk_per_s") if float(row["bulk_per_s_median"]) else "",
            )
            for row in rows
        ),
    )


def _computed(row: Row) -> str:
    """Return a median of tokens with its spread."""
    median, low, high = (float(row[f"computed_tokens_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.0f} [{low:.0f}, {high:.0f}]"
