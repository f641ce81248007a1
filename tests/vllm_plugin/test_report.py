"""Reports: asked for with the number of the last one, answered when there is something to tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.vllm_plugin.report import MIN_INTERVAL_S, ReportLog
from tests.core.hypothesis_settings import examples


class Source:
    """Something that changes: a number of things, told apart by a running number."""

    def __init__(self) -> None:
        self.everything: list[int] = []
        self.untold: list[int] = []
        self.log = ReportLog(self._changes, self._snapshot)

    def change(self) -> None:
        self.everything.append(len(self.everything))
        self.untold.append(self.everything[-1])

    def _changes(self) -> dict[str, Any]:
        told, self.untold = self.untold, []
        return {"things": told} if told else {}

    def _snapshot(self) -> dict[str, Any]:
        self._changes()
        return {"things": list(self.everything)}


def up_to_date(now_s: float = 0.0) -> tuple[Source, int]:
    """Return a source, and the number of the report that tells all of it."""
    source = Source()
    return source, source.log.ask(-1, now_s).result()["number"]


@pytest.mark.parametrize("num_changes", [0, 3])
def test_the_first_report_is_a_snapshot(num_changes: int) -> None:
    source = Source()
    for _ in range(num_changes):
        source.change()
    asked = source.log.ask(-1, 0.0)
    things = list(range(num_changes))
    assert asked.result(0) == {"number": 1, "is_snapshot": True, "things": things}
    assert source.untold == []


def test_a_question_waits_until_something_changes() -> None:
    source, number = up_to_date()
    asked = source.log.ask(number, 1.0)
    assert source.log.is_awaited
    source.log.flush(2.0, is_urgent=False)
    source.log.flush(2.0, is_urgent=True)
    assert not asked.done()
    source.change()
    source.log.flush(3.0, is_urgent=False)
    assert asked.result(0) == {"number": number + 1, "is_snapshot": False, "things": [0]}
    assert not source.log.is_awaited


def test_what_is_new_already_is_answered_at_once() -> None:
    source, number = up_to_date()
    source.change()
    source.change()
    assert source.log.ask(number, 1.0).result(0)["things"] == [0, 1]


def test_changes_that_nobody_asks_for_are_kept() -> None:
    source, number = up_to_date()
    source.change()
    source.log.flush(1.0, is_urgent=True)
    assert source.untold == [0]
    assert source.log.ask(number, 2.0).result(0)["things"] == [0]


@pytest.mark.parametrize(
    ("after_s", "is_urgent", "is_answered"),
    [
        (MIN_INTERVAL_S / 2, False, False),
        (MIN_INTERVAL_S / 2, True, True),
        (MIN_INTERVAL_S, False, True),
    ],
)
def test_reports_are_some_time_apart(after_s: float, is_urgent: bool, is_answered: bool) -> None:
    source, number = up_to_date()
    asked = source.log.ask(number, 0.0)
    source.change()
    source.log.flush(after_s, is_urgent=is_urgent)
    assert asked.done() is is_answered


def test_a_new_question_is_answered_at_once_if_there_is_something_to_tell() -> None:
    source, number = up_to_date()
    source.change()
    assert source.log.ask(number, MIN_INTERVAL_S / 2).done()


@pytest.mark.parametrize("number", [-1, 0, 2, 99])
def test_whoever_missed_a_report_gets_a_snapshot(number: int) -> None:
    source, last = up_to_date()
    source.change()
    asked = source.log.ask(number, 1.0)
    assert asked.result(0) == {"number": last + 1, "is_snapshot": True, "things": [0]}


def test_an_earlier_question_gets_an_empty_answer() -> None:
    source, number = up_to_date()
    first, second = source.log.ask(number, 1.0), source.log.ask(number, 1.0)
    assert first.result(0) == {}
    assert not second.done()
    source.change()
    source.log.flush(2.0, is_urgent=True)
    assert second.result(0)["number"] == number + 1


def test_a_question_that_was_given_up_takes_no_changes() -> None:
    source, number = up_to_date()
    source.log.ask(number, 1.0).cancel()
    source.change()
    source.log.flush(2.0, is_urgent=True)
    assert source.untold == [0]
    assert source.log.ask(number, 2.0).result(0)["things"] == [0]


@examples(200)
@given(st.lists(st.sampled_from(["change", "ask", "ask anew", "lose", "step", "end"]), max_size=40))
def test_whoever_follows_the_reports_knows_everything(events: list[str]) -> None:
    source, now_s, number = Source(), 0.0, -1
    known: list[int] = []
    asked = None
    for event in [*events, "ask", "end"]:
        now_s += 0.02
        if event == "change":
            source.change()
        elif (event == "ask" and (asked is None or asked.done())) or event == "ask anew":
            asked = source.log.ask(number, now_s)
        elif event == "lose":
            asked = None  # its answer, if there is one, never arrives
        else:
            source.log.flush(now_s, is_urgent=event == "end")
        if asked is not None and asked.done():
            report, asked = asked.result(), None
            assert report["number"] > number
            assert report["is_snapshot"] or report["number"] == number + 1
            known = report["things"] if report["is_snapshot"] else known + report["things"]
            number = report["number"]
    assert known == source.everything
