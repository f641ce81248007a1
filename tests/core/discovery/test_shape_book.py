from __future__ import annotations

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
    assert book.output_length("app", "a") is None
    book.learn_run("app", _stages("a:1"))
    assert book.forecast("app", []) is None
    assert book.forecast("app", _stages("b:1")) is None
    assert book.forecast("other", _stages("a:1")) is None


def test_output_lengths_are_those_of_the_template_else_of_the_application() -> None:
    book = ShapeBook()
    for tokens in range(1, 11):
        book.learn_length("app", "a", tokens)
        book.learn_length("app", "b", 100 * tokens)
    assert book.output_length("app", "a") == (5, 10, 10)
    assert book.output_length("app", "b") == (500, 1000, 10)
    assert book.output_length("app", "c") == (10, 900, 20)


def test_memory_is_bounded() -> None:
    book = ShapeBook(ShapeBookConfig(max_apps=2, max_histories=8, max_templates=3))
    for number in range(50):
        app = f"app {number % 3}"
        book.learn_run(app, _stages(" ".join(f"{number}.{i}:1" for i in range(20))))
        book.learn_length(app, f"template {number}", 7)
    assert len(book._apps) == 2
    assert all(len(app.followers) <= 8 for app in book._apps.values())
    assert all(len(app.lengths) <= 3 for app in book._apps.values())


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
