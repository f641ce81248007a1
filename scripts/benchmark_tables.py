"""Writes the newest benchmark rows as tables into README.md and the pages in docs/.

Each table stands between two marker comments and is replaced as a whole, so the pages show nothing
that is not in ``benchmarks/results``. The newest rows are those with the commit of the last row.

    python scripts/benchmark_tables.py
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
Row = dict[str, str]


def newest(name: str) -> list[Row]:
    """Return the rows of the last run of a benchmark."""
    with (ROOT / "benchmarks" / "results" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["commit"] == rows[-1]["commit"]]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["--"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(row: Row, name: str) -> str:
    """Return a median with its 20th and 80th percentile."""
    median, low, high = (float(row[f"{name}_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.2f} s [{low:.2f}, {high:.2f}]"


def ratio(row: Row, name: str) -> str:
    """Return a ratio with its 20th and 80th percentile."""
    median, low, high = (float(row[f"{name}_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def source(row: Row, name: str) -> str:
    """Return the line that says where a table comes from."""
    what = f"`benchmarks/results/{name}.csv`, commit {row['commit']}, {row['cores']} cores"
    versions = f"vLLM {row['vllm']}, Python {row['python']}"
    return f"\n\nSource: {what} of {row['cpu']}, {versions}, {row['time_utc'][:10]}.\n"


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


def scheduler_table(rows: list[Row]) -> str:
    """Return the scheduler benchmark."""
    columns = ("placement", "engines", "waiting", "decision_p50_us", "decision_p99_us")
    header = ("placement", "engines", "waiting", "decision p50", "p99", "decisions/s")
    return table(
        header,
        (
            (
                *(row[c] for c in columns[:3]),
                *(f"{float(row[c]):.0f} us" for c in columns[3:]),
                f"{float(row['decisions_per_s']):.0f}",
            )
            for row in rows
        ),
    )


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


def server_table(row: Row) -> str:
    """Return the server benchmark: ours beside a bare FastAPI application."""
    names = {
        "single_p50_ms": "one call, submit to value, p50 (ms)",
        "single_p99_ms": "the same, p99 (ms)",
        "rate_16_clients_per_s": "submits per second, 16 clients",
        "dependent_p50_ms": "each further dependent call in a submit, p50 (ms)",
    }
    lines = [(text, row[key], row.get(f"bare_{key}", "")) for key, text in names.items()]
    return table(("", "Parrot", "bare FastAPI"), lines)


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


def spread(row: Row, name: str) -> str:
    """Return a median with its 20th and 80th percentile, without a unit; a dash for nothing."""
    if not row[f"{name}_median"]:
        return "-"
    median, low, high = (float(row[f"{name}_{part}"]) for part in ("median", "p20", "p80"))
    return f"{median:.3g} [{low:.3g}, {high:.3g}]"


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


def times_less(row: Row, base: Row, name: str) -> str:
    """Return how many times less a value is than in the row to compare with."""
    if not row[f"{name}_median"] or not base[f"{name}_median"]:
        return ""
    return f"{float(base[f'{name}_median']) / float(row[f'{name}_median']):.2f} x"


@dataclass(frozen=True)
class PluginTable:
    """How a benchmark of the plug-in is shown.

    Attributes:
        keys: Columns that name a row.
        values: Columns that were measured, with their headings.
        base: Value of ``variant`` in the row that others are compared with.
        within: Columns that must be equal in both.
    """

    keys: tuple[str, ...]
    values: dict[str, str]
    base: str
    within: tuple[str, ...] = ()

    def render(self, rows: list[Row]) -> str:
        """Return the table."""
        header = [*self.keys]
        for title in self.values.values():
            header += [title, "better"]
        lines = []
        for row in rows:
            base = next(
                other
                for other in rows
                if other["variant"] == self.base
                and all(other[column] == row[column] for column in self.within)
            )
            line = [row[key] for key in self.keys]
            for name in self.values:
                line += [spread(row, name), times_less(row, base, name)]
            lines.append(line)
        return table(header, lines)


PLUGIN_TABLES = {
    "mixed_load": PluginTable(
        ("variant",),
        {
            "chat_tpot_ms": "chat: ms per token",
            "chat_ttft_ms": "chat: ms to first token",
            "chat_normalised_ms": "chat: whole time per token, ms",
            "job_s": "job, s",
        },
        "vllm",
    ),
    "task_groups": PluginTable(
        ("variant",), {"mean_job_s": "mean job, s", "last_job_s": "last job, s"}, "vllm"
    ),
    "prefix_pins": PluginTable(
        ("variant",),
        {
            "computed_over_least": "prompt tokens computed / least",
            "time_s": "all sessions, s",
        },
        "vllm",
    ),
    "early_fill": PluginTable(
        ("scenario", "variant"),
        {"ttft_ms": "ms to first token", "chain_s": "chain, s"},
        "no fill",
        ("scenario",),
    ),
    "splicing": PluginTable(
        ("tokens", "variant"),
        {"call_ms": "call, ms", "between_ms": "beside decoding, ms per output"},
        "unspliced",
        ("tokens",),
    ),
    "plugin_overhead": PluginTable(("variant",), {"step_ms": "step, ms"}, "vllm"),
}


def replace(page: Path, mark: str, text: str) -> None:
    """Replace what stands between the two markers of a name.

    Raises:
        ValueError: The page has no such markers.
    """
    before = page.read_text()
    begin, end = f"<!-- {mark} -->", f"<!-- end {mark} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"{page.name} has no markers for {mark}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", before))


def main() -> None:
    """Write all tables."""
    chain, map_reduce = newest("chain"), newest("map_reduce")
    scheduler, server = newest("scheduler"), newest("server")[-1]
    readme, page = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
    far = [row for row in chain if row["round_trip_ms"] == "250"]
    replace(readme, "chain", chain_table(far) + source(far[0], "chain"))
    replace(page, "chain", chain_table(chain) + source(chain[0], "chain"))
    replace(page, "map_reduce", map_reduce_table(map_reduce) + source(map_reduce[0], "map_reduce"))
    replace(page, "scheduler", scheduler_table(scheduler) + source(scheduler[0], "scheduler"))
    discovery = newest("discovery")
    replace(page, "discovery", discovery_table(discovery) + source(discovery[0], "discovery"))
    added = newest("discovery_server")
    text = discovery_server_table(added) + source(added[0], "discovery_server")
    replace(page, "discovery_server", text)
    replace(page, "server", server_table(server) + source(server, "server"))
    langchain = newest("langchain_call")
    text = langchain_table(langchain) + source(langchain[0], "langchain_call")
    replace(page, "langchain_call", text)
    for name in ("langchain", "semantic_kernel"):
        programs = newest(name)
        text = programs_table(programs) + source(programs[0], name)
        replace(ROOT / "docs" / f"{name}.md", name, text)
        far = [row for row in programs if row["round_trip_ms"] == "250"]
        replace(readme, name, programs_table(far) + source(far[0], name))
    planning = newest("langchain_plan")
    text = planning_table(planning) + source(planning[0], "langchain_plan")
    replace(page, "langchain_plan", text)
    plugin = ROOT / "docs" / "vllm_plugin.md"
    for name, shape in PLUGIN_TABLES.items():
        rows = newest(name)
        replace(plugin, name, shape.render(rows) + source(rows[0], name))


if __name__ == "__main__":
    main()
