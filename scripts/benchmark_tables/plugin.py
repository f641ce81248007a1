"""Tables of the plug-in inside vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.benchmark_tables.markdown import Row, spread, table, times_less


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
