"""What a plan foresaw and what came of it, for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parrot_backend.protocol import TextSegment
from parrot_integrations.planning.builder import Note
from parrot_integrations.planning.steps import (
    PlannedCall,
    PlannedLoop,
    PlannedMap,
    PlannedText,
    Step,
    all_steps,
    bodies_of,
)

_TITLE_CHARS = 32


@dataclass(frozen=True, slots=True)
class PlanReport:
    """One plan.

    Attributes:
        steps: What was submitted.
        num_planned: Planned calls, those in instances of maps and loops included.
        num_claimed: Those that the program made.
        num_missed: Calls of the program that were not in the plan and were sent by themselves.
        num_lost: Claimed calls that were sent by themselves after all, because the plan was lost.
        num_submits: Requests that carried a graph.
        num_sets: Late-bound variables that were set after the submit.
        late: Steps on the client between planned calls, and why they are not on the server.
        cuts: Steps with calls that could not be planned, and why.
    """

    steps: tuple[Step, ...]
    num_planned: int
    num_claimed: int
    num_missed: int
    num_lost: int
    num_submits: int
    num_sets: int
    late: tuple[Note, ...]
    cuts: tuple[Note, ...]

    @property
    def num_wasted(self) -> int:
        """Planned calls that the program did not make."""
        return self.num_planned - self.num_claimed

    def __str__(self) -> str:
        """Return the report as lines."""
        is_unused = not (self.num_submits or self.num_claimed or self.num_missed)
        first = (
            f"planned {self.num_planned} calls; nothing has run yet"
            if is_unused
            else f"planned {self.num_planned} calls in {self.num_submits} submit(s): "
            f"{self.num_claimed} used, {self.num_wasted} not used; {self.num_missed} more sent by "
            f"themselves; {self.num_sets} value(s) set"
        )
        lines = [
            first,
            *([f"  lost        {self.num_lost} call(s) sent again"] if self.num_lost else ()),
            *_listed("late-bound", (note for note in self.late if note not in self.cuts)),
            *_listed("cut", self.cuts),
        ]
        return "\n".join(lines)

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flow chart."""
        return "\n".join(["flowchart LR", *_chart(self.steps)])


def _listed(kind: str, notes: Iterable[Note]) -> Iterator[str]:
    """Yield a line for each note; those that say the same share one."""
    for note, count in Counter(notes).items():
        times = f" ({count} times)" if count > 1 else ""
        yield f"  {kind:<10}  {note.where}: {note.why}{times}"


def _chart(steps: tuple[Step, ...]) -> Iterator[str]:
    ids = {step.output: f"n{i}" for i, step in enumerate(all_steps(steps))}
    outside: dict[str, str] = {}
    yield from _boxes(steps, ids)
    for step in all_steps(steps):
        for name in step.inputs:
            if name not in ids and name not in outside:
                outside[name] = f"x{len(outside)}"
                yield f'  {outside[name]}(["{_quoted(name)}"])'
            yield f"  {ids.get(name) or outside[name]} --> {ids[step.output]}"


def _boxes(steps: tuple[Step, ...], ids: dict[str, str], indent: str = "  ") -> Iterator[str]:
    for step in steps:
        node = ids[step.output]
        match step:
            case PlannedCall():
                yield f'{indent}{node}["{_quoted(_title(step))}"]'
            case PlannedText():
                yield f'{indent}{node}(["text"])'
            case _:
                kind = "map" if isinstance(step, PlannedMap) else "branch"
                kind = "loop" if isinstance(step, PlannedLoop) else kind
                yield f'{indent}{node}{{{{"{kind} {_quoted(step.name)}"}}}}'
                for position, body in enumerate(bodies_of(step)):
                    yield f'{indent}subgraph {node}_{position}["{kind}"]'
                    yield from _boxes(body.steps, ids, indent + "  ")
                    yield f"{indent}end"
                    if body.result in ids:
                        yield f"{indent}{ids[body.result]} -.-> {node}"


def _title(step: PlannedCall) -> str:
    """Return the label with the beginning of what the call says."""
    said = next((s.text for c in step.contents for s in c if isinstance(s, TextSegment)), "")
    words = " ".join(said.split())
    return f"{step.label}: {words[:_TITLE_CHARS]}" if words else step.label


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;").replace("\n", " ")
