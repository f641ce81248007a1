"""What the runs of a team left, in the words of the demonstration's charts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_backend.demo.records import CallRecord, Phase, PhaseKind, RunRecord
from parrot_backend.protocol import SessionView


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run.

    Attributes:
        way: For people.
        e2e_s: From the first call's begin to the last one's end.
        calls: As ``recording`` noted them.
        session: What Parrot made of it; None where it was not told of a program.
    """

    way: str
    e2e_s: float
    calls: list[dict[str, Any]]
    session: SessionView | None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(call["prompt_tokens"] for call in self.calls)

    @property
    def cached_tokens(self) -> int | None:
        """Those whose keys and values were in the cache; None if the engine does not tell."""
        told = [call["cached_tokens"] for call in self.calls]
        return None if None in told else sum(told)


def read_result(way: str, folder: Path) -> RunResult:
    """Read what ``run_team`` wrote."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    session = None if run["session"] is None else SessionView.model_validate(run["session"])
    return RunResult(way, run["e2e_s"], run["calls"], session)


def edges_of(session: SessionView) -> list[tuple[str, str]]:
    """Return which call's output which call reads."""
    made = {node.output for node in session.nodes}
    return [(name, node.output) for node in session.nodes for name in node.inputs if name in made]


def to_record(result: RunResult, session: SessionView) -> RunRecord:
    """Return a run for the charts; what needs what, and the engine's times, are the session's."""
    needs: dict[str, list[str]] = {node.output: [] for node in session.nodes}
    for source, target in edges_of(session):
        needs[target].append(source)
    engine_s = {node.output: node.engine_s or 0.0 for node in session.nodes}
    calls = tuple(
        CallRecord(
            name=call["name"],
            phases=(Phase(PhaseKind.CALL, call["begin_s"], call["end_s"]),),
            needs=tuple(needs.get(call["name"], ())),
            engine_s=engine_s.get(call["name"], 0.0),
            prompt_tokens=call["prompt_tokens"],
            cached_tokens=call["cached_tokens"] or 0,
            completion_tokens=call["completion_tokens"],
        )
        for call in result.calls
    )
    return RunRecord(result.way, result.e2e_s, len(calls), calls, text="")
