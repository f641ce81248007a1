"""Programs with threads: what is sent when; readers and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import parrot_integrations as P
from parrot_backend.protocol import WireCriteria
from tests.helpers.fake_parrot import FakeParrot


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


def wanted(fake: FakeParrot, submit: int = -1) -> dict[str, WireCriteria | None]:
    return {output.variable: output.criteria for output in fake.submits[submit].outputs}


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.002)


# --- what is sent -----------------------------------------------------------------------------


def test_the_first_get_ships_the_whole_graph_in_one_request(
    fake: FakeParrot, program: P.Program
) -> None:
    Ask(Ask(Ask("why"))).get()
    assert fake.log == ["POST /v1/submit"]


def test_a_second_get_of_a_leaf_costs_no_request(fake: FakeParrot, program: P.Program) -> None:
    first, second = Ask("one"), Ask("two")
    first.get()
    second.get()
    assert fake.log == ["POST /v1/submit"]


def test_what_is_gotten_between_calls_comes_with_the_same_request(
    fake: FakeParrot, program: P.Program
) -> None:
    first = Ask("one")
    second = Ask(first)
    first.get()
    second.get()
    assert fake.log == ["POST /v1/submit"]


def test_a_value_between_calls_that_was_not_wanted_is_fetched(program: P.Program) -> None:
    first = Ask("one")
    Ask(first).get()
    assert first.get() == "<Q: one A: >"


def test_several_values_between_calls_are_fetched_in_one_request(
    fake: FakeParrot, program: P.Program
) -> None:
    parts = [Ask(str(number)) for number in range(9)]
    P.join(parts).get()
    P.get_all(parts)
    assert fake.log == ["POST /v1/submit"] * 2


def test_a_repeated_get_costs_no_request(fake: FakeParrot, program: P.Program) -> None:
    answer = Ask("one")
    answer.get()
    answer.get()
    assert fake.log == ["POST /v1/submit"]


def test_a_get_of_a_known_value_ships_nothing(fake: FakeParrot, program: P.Program) -> None:
    answer = Ask("one")
    answer.get()
    Ask("two")
    answer.get()
    assert fake.log == ["POST /v1/submit"]


def test_later_calls_go_to_the_same_session(fake: FakeParrot, program: P.Program) -> None:
    first = Ask("one")
    first.get()
    Ask(first).get()
    assert [submit.session_id for submit in fake.submits] == [None, "s1"]


def test_later_calls_ship_only_what_is_new(fake: FakeParrot, program: P.Program) -> None:
    first = Ask("one")
    first.get()
    Ask(first).get()
    assert [len(submit.nodes) for submit in fake.submits] == [1, 1]


def test_a_leaf_inherits_the_kind_of_criteria_without_its_targets(
    fake: FakeParrot, program: P.Program
) -> None:
    first, _second = Ask("one"), Ask("two")
    first.get(perf=P.Criteria(deadline_s=3))
    assert wanted(fake) == {
        "Ask-answer": P.Criteria(deadline_s=3),
        "Ask-answer-2": P.UNSTATED,
    }


def test_a_get_that_asks_for_more_than_was_told_tells_it(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.held = {"Ask-answer-2"}
    first, second = Ask("one"), Ask("two")
    first.get(perf=P.THROUGHPUT)
    with pytest.raises(P.WaitTimeout):
        second.get(perf=P.LATENCY, timeout_s=0.05)
    assert (fake.submits[1].nodes, wanted(fake)) == ((), {"Ask-answer-2": P.LATENCY})


def test_a_get_that_asks_for_less_than_was_told_says_nothing(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.held = {"Ask-answer-2"}
    first, second = Ask("one"), Ask("two")
    first.get(perf=P.LATENCY)
    with pytest.raises(P.WaitTimeout):
        second.get(perf=P.THROUGHPUT, timeout_s=0.05)
    assert fake.log == ["POST /v1/submit"]


def test_get_all_wants_everything_in_one_request(fake: FakeParrot, program: P.Program) -> None:
    first = Ask("one")
    second = Ask(first)
    P.get_all([first, second], perf=P.THROUGHPUT)
    assert wanted(fake) == {"Ask-answer": P.THROUGHPUT, "Ask-answer-2": P.THROUGHPUT}


def test_get_all_returns_values_in_the_order_asked(program: P.Program) -> None:
    assert P.get_all([Ask("b"), P.SemanticVariable("c"), Ask("a")]) == [
        "<Q: b A: >",
        "c",
        "<Q: a A: >",
    ]


def test_app_and_metadata_describe_the_session(fake: FakeParrot, client: P.ParrotClient) -> None:
    with P.program(client=client, app="snake", metadata={"user": 7}):
        Ask("one").get()
    assert (fake.submits[0].app, fake.submits[0].metadata) == ("snake", {"user": 7})


# --- threads ----------------------------------------------------------------------------------


def test_many_threads_may_record_and_get_in_one_program(
    fake: FakeParrot, program: P.Program
) -> None:
    base = Ask("base")
    values: list[str] = []

    def work(number: int) -> None:
        values.append(P.join([base, Ask(P.format(f"{number} {{{{input:b}}}}", b=base))]).get())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(values) == sorted(
        f"<Q: base A: ><Q: {number} <Q: base A: > A: >" for number in range(16)
    )


def test_all_threads_of_one_program_share_one_session(fake: FakeParrot, program: P.Program) -> None:
    base = Ask("base")
    threads = [threading.Thread(target=lambda: Ask(base).get()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert list(fake.sessions) == ["s1"]


def test_readers_end_when_all_is_settled(fake: FakeParrot, program: P.Program) -> None:
    Ask("one").get()
    until(lambda: not any(t.name == "parrot-reader" for t in threading.enumerate()))


def test_readers_end_when_the_program_is_closed(fake: FakeParrot, client: P.ParrotClient) -> None:
    fake.held = {"Ask-answer"}
    with P.program(client=client), pytest.raises(P.WaitTimeout):
        Ask("one").get(timeout_s=0.05)
    until(lambda: not any(t.name == "parrot-reader" for t in threading.enumerate()))
