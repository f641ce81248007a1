from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.discovery import stages as stages_module
from parrot_backend.core.discovery.stages import SessionRuns, StageShape
from parrot_backend.core.ids import VariableId
from tests.core.hypothesis_settings import examples


def _play(calls: Sequence[Sequence[int]]) -> tuple[SessionRuns, list[int], list[int]]:
    """Play calls, each given by which earlier ones it reads; return their runs and stages."""
    runs = SessionRuns()
    numbers, stages = [], []
    for number, reads in enumerate(calls):
        place, _ = runs.begin([VariableId(str(read)) for read in reads], f"t{number}")
        runs.end(place, VariableId(str(number)))
        numbers.append(place.run)
        stages.append(place.stage)
    return runs, numbers, stages


def test_what_hangs_together_is_a_run() -> None:
    runs, numbers, stages = _play([[], [], [0], [1], [2], [1]])

    assert numbers == [0, 1, 0, 1, 0, 1]
    assert stages == [0, 0, 1, 1, 2, 1]
    assert [[stage.width for stage in shape] for shape in runs.shapes()] == [[1, 1, 1], [1, 2]]


def test_a_call_that_reads_of_two_runs_makes_them_one() -> None:
    runs, numbers, stages = _play([[], [], [1], [0, 2], [1]])

    assert numbers == [0, 1, 1, 0, 0]
    assert stages == [0, 0, 1, 2, 1]
    shape = [StageShape(("t0", "t1"), 2), StageShape(("t2", "t4"), 2), StageShape(("t3",), 1)]
    assert runs.shapes() == [tuple(shape)]
    assert [stage.shape() for stage in runs.stages(1)] == shape


def test_who_reads_what_was_made_long_ago_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_module, "_MAX_VALUES", 2)

    _, numbers, stages = _play([[], [0], [1], [0], [2]])

    assert (numbers, stages) == ([0, 0, 0, 1, 0], [0, 1, 2, 0, 3])


_CALLS = st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=16).map(
    lambda calls: [[r % n for r in reads] if n else [] for n, reads in enumerate(calls)]
)


@examples(200)
@given(_CALLS)
def test_runs_are_the_connected_parts(calls: list[list[int]]) -> None:
    runs, _, stages = _play(calls)

    part = list(range(len(calls)))
    for number, reads in enumerate(calls):
        joined = {part[read] for read in reads} | {part[number]}
        part = [min(joined) if p in joined else p for p in part]
    expected = []
    for first in sorted(set(part)):
        kinds: dict[int, list[str]] = {}
        for number in range(len(calls)):
            if part[number] == first:
                kinds.setdefault(stages[number], []).append(f"t{number}")
        shape = [StageShape(tuple(sorted(kinds[at])), len(kinds[at])) for at in sorted(kinds)]
        expected.append(tuple(shape))
    assert runs.shapes() == expected
