"""What gets raise, and what they do after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

import parrot_integrations as P
from parrot_backend.protocol import WireCriteria
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply


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


def test_a_failed_value_tells_where_it_began_and_the_way_it_took(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask(Ask("one")), Ask("other")
    other.get()
    fake.fail("Ask-answer", "engine_lost")
    with pytest.raises(P.ValueFailed) as caught:
        answer.get()
    assert (caught.value.code, caught.value.path) == (
        "engine_lost",
        ("Ask-answer", "Ask-answer-2"),
    )


def test_a_cancelled_value_raises(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("two")
    other.get()
    answer.cancel()
    with pytest.raises(P.ValueCancelled):
        answer.get()


def test_cancelling_reaches_the_server(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("two")
    other.get()
    answer.cancel()
    assert fake.log[-1] == "POST /v1/sessions/s1/cancel"


def test_what_was_never_sent_cannot_be_cancelled(program: P.Program) -> None:
    with pytest.raises(P.ProgramError, match="not_started"):
        Ask("one").cancel()


def test_cancelling_a_value_that_is_there_changes_nothing(
    fake: FakeParrot, program: P.Program
) -> None:
    answer = Ask("one")
    answer.get()
    answer.cancel()
    assert answer.get() == "<Q: one A: >"


def test_a_timeout_leaves_the_work_going_on(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    answer, other = Ask("one"), Ask("other")
    other.get()
    with pytest.raises(P.WaitTimeout):
        answer.get(timeout_s=0.01)
    fake.finish("Ask-answer", "late")
    assert (answer.get(), fake.log) == ("late", ["POST /v1/submit"])


def test_a_timeout_holds_even_if_the_server_does_not_answer_at_all(
    program: P.Program, fake: FakeParrot
) -> None:
    given_up = threading.Event()

    def slow(prompt: str) -> str:
        given_up.wait(20)
        return prompt

    fake.generate = slow
    begin_s = time.monotonic()
    with pytest.raises(P.WaitTimeout):
        Ask("one").get(timeout_s=0.05)
    assert time.monotonic() - begin_s < 10
    given_up.set()


def test_a_get_without_a_server_raises(fake: FakeParrot, program: P.Program) -> None:
    fake.mishaps = [httpx.ConnectError("no route")] * 5
    with pytest.raises(P.ConnectionFailed):
        Ask("one").get()


def test_a_submit_that_failed_is_sent_again_by_the_next_get(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.mishaps = [httpx.ConnectError("no route")] * 5
    answer = Ask("one")
    with pytest.raises(P.ConnectionFailed):
        answer.get()
    assert answer.get() == "<Q: one A: >"


def test_a_submit_that_is_sent_again_keeps_its_key(fake: FakeParrot, program: P.Program) -> None:
    fake.lost_replies = 5
    answer = Ask("one")
    with pytest.raises(P.ConnectionFailed):
        answer.get()
    answer.get()
    assert (len(fake.keys), len(set(fake.keys)), len(fake.submits)) == (6, 1, 1)


def test_what_was_recorded_after_a_failed_submit_is_sent_after_it(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.mishaps = [httpx.ConnectError("no route")] * 5
    first = Ask("one")
    with pytest.raises(P.ConnectionFailed):
        first.get()
    second = Ask(first)
    assert second.get() == "<Q: <Q: one A: > A: >"


def test_a_refused_submit_raises_at_every_get(fake: FakeParrot, program: P.Program) -> None:
    fake.mishaps = [error_reply(422, "unknown_model")]
    answer = Ask("one")
    for _ in range(2):
        with pytest.raises(P.RequestRejected, match="unknown_model"):
            answer.get()


def test_what_reads_a_refused_variable_is_refused_without_asking(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.mishaps = [error_reply(422, "unknown_model")]
    answer = Ask("one")
    with pytest.raises(P.RequestRejected):
        answer.get()
    with pytest.raises(P.RequestRejected, match="unknown_model"):
        Ask(answer).get()
    assert fake.count("POST") == 1


def test_after_a_refused_submit_independent_calls_go_on(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.mishaps = [error_reply(422, "unknown_model")]
    with pytest.raises(P.RequestRejected):
        Ask("one").get()
    assert Ask("two").get() == "<Q: two A: >"


def test_a_constant_of_a_refused_submit_can_be_used_again(
    fake: FakeParrot, program: P.Program
) -> None:
    task = P.SemanticVariable("snake")
    fake.mishaps = [error_reply(422, "unknown_model")]
    with pytest.raises(P.RequestRejected):
        Ask(task).get()
    assert Ask(task).get() == "<Q: snake A: >"


def test_a_lost_connection_is_resumed_behind_the_users_back(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.breaks = [1, 0]
    assert Ask("one").get() == "<Q: one A: >"


def test_a_connection_lost_for_good_reaches_whoever_waits(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.held = {"Ask-answer"}
    threading.Timer(0.05, fake.shut_down).start()
    with pytest.raises(P.ConnectionFailed):
        Ask("one").get()


def test_a_get_after_a_connection_was_lost_asks_again(fake: FakeParrot, program: P.Program) -> None:
    fake.held = {"Ask-answer"}
    fake.breaks = [0, 0, 0]
    answer = Ask("one")
    with pytest.raises(P.ConnectionFailed):
        answer.get()
    fake.finish("Ask-answer", "late")
    assert answer.get() == "late"


def test_a_failed_request_for_one_value_is_not_repeated_by_other_gets(
    fake: FakeParrot, program: P.Program
) -> None:
    first = Ask("one")
    Ask(first).get()
    fake.mishaps = [httpx.ConnectError("no route")] * 5
    with pytest.raises(P.ConnectionFailed):
        first.get()
    num_requests = len(fake.log)
    Ask("two").get()
    assert len(fake.log) == num_requests + 1


def test_a_defect_in_reading_answers_whoever_waits(
    program: P.Program, fake: FakeParrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(P.ParrotClient, "submit_stream", explode)
    with pytest.raises(P.ServerFailed, match="reader_failed"):
        Ask("one").get()
