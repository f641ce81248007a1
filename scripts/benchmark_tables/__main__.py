"""Writes the newest benchmark rows as tables into README.md and the pages in docs/.

Each table stands between two marker comments and is replaced as a whole, so the pages show nothing
that is not in ``benchmarks/results``. The newest rows are those with the commit of the last row.
What has no rows at all is told, and its place left as it is.

    python -m scripts.benchmark_tables
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scripts.benchmark_tables import (
    agents,
    attention,
    live,
    plugin,
    programs,
    server,
    structure,
)
from scripts.benchmark_tables.markdown import ROOT, Row, newest, replace, results, source


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table goes.

    Attributes:
        name: Of the benchmark, and of the markers.
        page: Path of the page.
        render: Makes the table.
        chosen: Which rows are in it.
    """

    name: str
    page: str
    render: Callable[[list[Row]], str]
    chosen: Callable[[Row], bool] = lambda _: True


def _is_far(row: Row) -> bool:
    return row["round_trip_ms"] == "250"


_PAGE = "docs/benchmarks.md"

PLACES = (
    Place("chain", "README.md", programs.chain_table, _is_far),
    Place("chain", _PAGE, programs.chain_table),
    Place("map_reduce", _PAGE, programs.map_reduce_table),
    Place("scheduler_grid", _PAGE, server.scheduler_table),
    Place("scheduler_compiled", "docs/simulator.md", server.scheduler_table),
    Place("simulator", "docs/simulator.md", server.simulator_table),
    Place("prefix_index", _PAGE, server.prefix_index_table),
    Place("discovery", _PAGE, structure.discovery_table),
    Place("discovery_server", _PAGE, structure.discovery_server_table),
    Place("discovery_gain", _PAGE, agents.discovery_gain_table),
    Place("discovery_pins", _PAGE, agents.discovery_pins_table),
    Place("server", _PAGE, server.server_table),
    Place("langchain_call", _PAGE, server.langchain_table),
    Place("langchain_plan", _PAGE, programs.planning_table),
    Place("placement", _PAGE, live.placement_table),
    Place("live_validation", "docs/simulator.md", live.validation_table),
    Place("openai", "docs/openai.md", agents.openai_table),
    Place("metagpt", "docs/agents.md", agents.metagpt_table),
    Place("attention", "docs/kernels.md", attention.attention_table),
    *(
        place
        for name in ("langchain", "semantic_kernel")
        for place in (
            Place(name, f"docs/{name}.md", programs.programs_table),
            Place(name, "README.md", programs.programs_table, _is_far),
        )
    ),
    *(
        Place(name, "docs/vllm_plugin.md", shape.render)
        for name, shape in plugin.PLUGIN_TABLES.items()
    ),
)


def main() -> None:
    """Write all tables."""
    for place in PLACES:
        if not results(place.name).exists():
            print(f"{place.page}: no rows of {place.name} yet")
            continue
        rows = [row for row in newest(place.name) if place.chosen(row)]
        text = place.render(rows) + source(rows[-1], place.name)
        replace(ROOT / place.page, place.name, text)


if __name__ == "__main__":
    main()
