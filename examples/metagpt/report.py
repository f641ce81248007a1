"""What the comparison shows: a table, the graph, and a Gantt page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from examples.metagpt.records import RunResult, edges_of, to_record
from examples.metagpt.runner import RunFailed
from parrot_backend.demo.bound import bound_s
from parrot_backend.demo.gantt import Chart, gantt_page
from parrot_backend.protocol import SessionView

_INTRO = (
    "Each bar is one call of MetaGPT, from its request to its reply. In all ways MetaGPT waits "
    "after each round until all roles are done.",
    "Bound: the engine's own time, in the run with the Parrot provider, over the longest chain of "
    "calls that need each other.",
    "The bundled model is tiny and has random weights: its code is noise, and only times mean "
    "anything.",
)


def planned(results: Sequence[RunResult]) -> tuple[RunResult, SessionView]:
    """Return the run that told Parrot of the program, and its session.

    Raises:
        RunFailed: There is none.
    """
    for result in results:
        if result.session is not None:
            return result, result.session
    raise RunFailed("no run has a session: the server did not show it at the run's end")


def print_table(results: Sequence[RunResult]) -> None:
    """Print a line for each way."""
    _, session = planned(results)
    bound = bound_of(results)
    print(
        f"\n{'':18}{'time':>9}{'faster':>9}{'/ bound':>9}{'calls':>7}   prompt tokens new + reused"
    )
    for result in results:
        cached = result.cached_tokens
        tokens = f"{result.prompt_tokens} in all"
        if cached is not None:
            tokens = f"{result.prompt_tokens - cached} + {cached}"
        faster = results[0].e2e_s / result.e2e_s
        print(
            f"{result.way:18}{result.e2e_s:>7.2f} s{faster:>7.2f} x{result.e2e_s / bound:>9.2f}"
            f"{len(result.calls):>7}   {tokens}"
        )
    same = len({tuple(call["reply"] for call in result.calls) for result in results}) == 1
    print(f"the bound is {bound:.2f} s; Parrot saw {len(edges_of(session))} edges")
    # Prompts with references are tokenised in pieces: docs/agents.md.
    print("the same texts in all ways\n" if same else "other texts: tokens differ at seams\n")


def bound_of(results: Sequence[RunResult]) -> float:
    """Return the shortest possible time of the run that told Parrot of the program."""
    result, session = planned(results)
    return bound_s(to_record(result, session).calls, round_trip_s=0.0)


def write_report(folder: Path, results: Sequence[RunResult]) -> list[Path]:
    """Write the graph and the Gantt page beside the files of the runs; return all paths."""
    _, session = planned(results)
    graph, page = folder / "graph.md", folder / "gantt.html"
    graph.write_text(f"```mermaid\n{to_mermaid(session)}\n```\n", encoding="utf-8")
    first, last = results[0], results[-1]
    chart = Chart(
        title="A team writes a project",
        subtitle=(
            f"{first.way} {first.e2e_s:.2f} s, {last.way} {last.e2e_s:.2f} s, "
            f"bound {bound_of(results):.2f} s"
        ),
        runs=[to_record(result, session) for result in results],
        bound_s=bound_of(results),
    )
    page.write_text(gantt_page([chart], _INTRO), encoding="utf-8")
    return [graph, page, *sorted(folder.glob("parrot-provider/*.py"))]


def to_mermaid(session: SessionView) -> str:
    """Return the calls of a session, and what reads what, as a Mermaid flow chart."""
    lines = ["flowchart TD"]
    lines += [f'    {_id(node.output)}["{node.output}"]' for node in session.nodes]
    lines += [f"    {_id(source)} --> {_id(target)}" for source, target in edges_of(session)]
    return "\n".join(lines)


def _id(name: str) -> str:
    # A lower-case `end` in an id ends a block.
    return "n_" + re.sub(r"[^A-Za-z0-9]", "_", name)
