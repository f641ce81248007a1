from __future__ import annotations

import tracemalloc

import pytest

from parrot_backend.core.discovery.shape_book import Forecast, ShapeBook, ShapeBookConfig
from parrot_backend.core.discovery.stages import StageShape
from parrot_backend.core.discovery.structure import FoundCall, RunStructure
from parrot_backend.core.ids import VariableId
from tests.helpers.agent_traffic import TrafficCall, metagpt_calls, round_robin_calls


def _stages(text: str) -> list[StageShape]:
    """Read ``outline:1 write:4``."""
    pairs = (stage.split(":") for stage in text.split())
    return [StageShape(tuple(sorted(names.split("+"))), int(width)) for names, width in pairs]


ROUNDS = "outline:1 write:4 review:4 revise:4 review:4 revise:4"


@pytest.mark.parametrize(
    ("runs", "so_far", "to_come", "after"),
    [
        ([ROUNDS], "outline:1", 0, "write:4"),
        ([ROUNDS], "outline:1 write:1", 3, "review:4"),
        ([ROUNDS], "outline:1 write:4 review:4 revise:4 review:2", 2, "revise:4"),
        ([ROUNDS], ROUNDS, 0, None),
        # A run of another width: what is as wide as what is before it stays so.
        ([ROUNDS], "outline:1 write:8 review:3", 5, "revise:8"),
        # A run that begins otherwise goes on as others did from there.
        ([ROUNDS], "sketch:1 outline:1", 0, "write:4"),
        ([ROUNDS], "sketch:1 write:7 review:7", 0, "revise:7"),
        # The way from the start tells the rounds apart, the last steps do not.
        (
            [ROUNDS, "outline:1 write:4 review:4"],
            "outline:1 write:4 review:4 revise:4",
            0,
            "review:4",
        ),
        # Several kinds in a stage; the commonest wins, then the latest.
        (["a:1 b+c:2 d:1"], "a:1 c:1", 1, "d:1"),
        (["a:1 b:2", "a:1 c:3", "a:1 b:4"], "a:1", 0, "b:2"),
        (["a:1 b:2", "a:1 c:3"], "a:1", 0, "c:3"),
    ],
)
def test_forecast(runs: list[str], so_far: str, to_come: int, after: str | None) -> None:
    book = ShapeBook()
    for run in runs:
        book.learn_run("app", _stages(run))
    found = book.forecast("app", _stages(so_far))
    assert found is not None
    assert found.num_to_come == to_come
    assert found.next_stage == (None if after is None else _stages(after)[0])


def test_a_forecast_says_what_it_rests_on() -> None:
    book = ShapeBook()
    for run in ("a:1 b:2", "a:1 c:3", "a:1 b:2"):
        book.learn_run("app", _stages(run))
    found = book.forecast("app", _stages("a:1"))
    assert found == Forecast(0, StageShape(("b",), 2), 2 / 3, 3)


def test_nothing_is_said_of_what_was_never_seen() -> None:
    book = ShapeBook()
    assert book.forecast("app", _stages("a:1")) is None
    book.learn_run("app", _stages("a:1"))
    assert book.forecast("app", []) is None
    assert book.forecast("app", _stages("b:1")) is None
    assert book.forecast("other", _stages("a:1")) is None


def test_memory_is_bounded_over_all_applications() -> None:
    limits = ShapeBookConfig(max_entries=64, max_bytes=40_000)
    book = ShapeBook(limits)
    for number in range(200):
        book.learn_run(f"app {number}", _stages(" ".join(f"{number}.{i}:1" for i in range(20))))
        assert len(book) <= limits.max_entries
        assert book.num_bytes <= limits.max_bytes
    assert book.forecast("app 199", _stages("199.18:1")) is not None
    assert book.forecast("app 9", _stages("9.18:1")) is None


def test_bytes_are_counted_no_smaller_than_they_are() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        book = ShapeBook()
        for number in range(20):
            for run in range(3):
                kinds = [f"{number:04x}{run:04x}{kind:08x}" for kind in range(12)]
                stages = [StageShape(tuple(f"{at}{k}" for k in kinds), 12) for at in range(30)]
                book.learn_run(f"app {number}", stages)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= book.num_bytes <= 8 * taken


def test_a_long_run_does_not_crowd_out_its_own_beginning() -> None:
    book = ShapeBook(ShapeBookConfig(max_entries=1024))
    book.learn_run("app", _stages(" ".join(f"{i}:1" for i in range(1000))))
    found = book.forecast("app", _stages("0:1 1:1"))
    assert found is not None
    assert found.next_stage == _stages("2:1")[0]


def test_chats_do_not_crowd_out_what_runs_have_taught() -> None:
    book = ShapeBook(ShapeBookConfig(max_entries=256))
    for _ in range(2):
        book.learn_run("", _stages("plan:1 write+draw:4 join:1"))
    for chat in range(100):
        turns = [f"{chat}.{turn}" for turn in range(10)]
        book.learn_run("", _stages(" ".join(f"{turn}:1" for turn in turns)))
    for so_far, to_come, after in (
        ("plan:1", 0, "draw+write:4"),
        ("plan:1 write:1", 3, "join:1"),
        ("plan:1 write+draw:4", 0, "join:1"),
    ):
        found = book.forecast("", _stages(so_far))
        assert found is not None
        assert (found.num_to_come, found.next_stage) == (to_come, _stages(after)[0])


def test_stages_of_very_many_kinds_are_alike() -> None:
    kinds = "+".join(f"k{number}" for number in range(40))
    book = ShapeBook()
    book.learn_run("app", _stages(f"a:1 {kinds}:40 b:1"))
    found = book.forecast("app", _stages("a:1 k7:1"))
    assert found is not None
    assert (found.num_to_come, found.next_stage) == (39, _stages("b:1")[0])
    others = "+".join(f"other{number}" for number in range(20))
    after = book.forecast("app", _stages(f"a:1 {others}:20"))
    assert after is not None
    assert after.next_stage == _stages("b:1")[0]


def _run(book: ShapeBook, calls: list[TrafficCall]) -> tuple[int, int]:
    """Play a run, learn it, and return how often the next stage's width was right, of how often."""
    run = RunStructure()
    begun: list[FoundCall] = []
    ended = 0
    forecasts: list[tuple[int, int]] = []
    for call in calls:
        for before, found in zip(calls[ended : call.waits], begun[ended:], strict=False):
            run.end(found, VariableId(before.name), before.reply)
        if call.waits > ended and (forecast := book.forecast("app", run.shape())):
            width = forecast.next_stage.width if forecast.next_stage else 0
            forecasts.append((len(run.shape()), width))
        ended = call.waits
        begun.append(run.begin(call.texts))
    shape = run.shape()
    book.learn_run("app", shape)
    return sum(shape[index].width == width for index, width in forecasts), len(forecasts)


def test_the_second_run_of_the_coding_task_is_foreseen() -> None:
    book = ShapeBook()
    assert _run(book, list(metagpt_calls(4, seed=1))) == (0, 0)
    assert _run(book, list(metagpt_calls(4, seed=2))) == (7, 7)
    # Of another number of files, only how many there are cannot be known.
    assert _run(book, list(metagpt_calls(7, seed=3))) == (6, 7)


def test_agents_that_speak_in_turn_are_foreseen() -> None:
    book = ShapeBook()
    _run(book, list(round_robin_calls(9, seed=1)))
    assert _run(book, list(round_robin_calls(9, seed=2))) == (8, 8)
