"""Programs with threads: what is sent when, and what gets return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

import parrot_integrations as P
from parrot_backend.protocol import WireCriteria
from tests.helpers.fake_parrot import FakeParrot, error_reply


@P.SemanticFunction
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


def wanted(fake: FakeParrot, submit: int = -1) -> dict[str, WireCriteria]:
    return {output.variable: output.criteria for output in fake.submits[submit].outputs}


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.002)


# --- what is sent -------------------------------------------------------------------------------


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


def test_a_value_between_calls_that_was_not_wanted_is_fetched(
    fake: FakeParrot, program: P.Program
) -> None:
    first = Ask("one")
    Ask(first).get()
    assert first.get() == "<Q: one A: >"


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
        "Ask-answer": P.Criteria(kind="latency", deadline_s=3),
        "Ask-answer-2": P.LATENCY,
    }


def test_a_get_that_asks_for_more_than_was_told_tells_it(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.held = {"Ask-answer-2"}
    first, second = Ask("one"), Ask("two")
    first.get(perf=P.THROUGHPUT)
    with pytest.raises(P.WaitTimeout):
        second.get(perf=P.LATENCY, timeout_s=0.05)
    assert fake.queries == [{"stream": "true", "criteria": "latency"}]


def test_a_get_that_asks_for_less_than_was_told_says_nothing(
    fake: FakeParrot, program: P.Program
) -> None:
    fake.held = {"Ask-answer-2"}
    first, second = Ask("one"), Ask("two")
    first.get(perf=P.LATENCY)
    with pytest.raises(P.WaitTimeout):
        second.get(perf=P.THROUGHPUT, timeout_s=0.05)
    assert fake.queries == []


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


# --- variables ----------------------------------------------------------------------------------


def test_a_constant_is_its_own_value(fake: FakeParrot, program: P.Program) -> None:
    assert P.SemanticVariable("v").get() == "v"


def test_a_constant_used_twice_is_declared_once(fake: FakeParrot, program: P.Program) -> None:
    task = P.SemanticVariable("snake", name="task")
    P.get_all([Ask(task), Ask(task)])
    assert [variable.name for variable in fake.submits[0].variables] == ["task"]


def test_a_variable_holds_text_only() -> None:
    with pytest.raises(P.ProgramError, match="invalid_argument"):
        P.SemanticVariable(5)  # type: ignore[arg-type]


def test_an_external_set_before_the_get_is_sent_with_its_value(
    fake: FakeParrot, program: P.Program
) -> None:
    late = P.SemanticVariable()
    answer = Ask(late)
    late.set("now")
    assert (answer.get(), fake.count("PUT")) == ("<Q: now A: >", 0)


def test_an_external_set_before_its_first_use_is_a_constant(program: P.Program) -> None:
    late = P.SemanticVariable()
    late.set("now")
    assert Ask(late).get() == "<Q: now A: >"


def test_an_external_set_after_it_was_sent_lets_the_graph_go_on(
    fake: FakeParrot, program: P.Program
) -> None:
    late = P.SemanticVariable()
    other, answer = Ask("other"), Ask(late)
    other.get()
    late.set("now")
    assert (answer.get(), fake.count("PUT")) == ("<Q: now A: >", 1)


@pytest.mark.parametrize("is_sent", [False, True])
def test_an_external_can_be_set_once(is_sent: bool, program: P.Program) -> None:
    late = P.SemanticVariable()
    answer = Ask(late)
    late.set("now")
    if is_sent:
        answer.get()
    with pytest.raises(P.ProgramError, match="variable_already_set"):
        late.set("again")


def test_an_output_cannot_be_set(program: P.Program) -> None:
    with pytest.raises(P.ProgramError, match="variable_has_producer"):
        Ask("one").set("mine")


def test_ids_are_known_once_the_server_has_the_variable(program: P.Program) -> None:
    answer = Ask("one")
    before = answer.id
    answer.get()
    assert (before, answer.id) == (None, "s1.Ask-answer")


def test_usage_is_known_once_the_value_is(program: P.Program) -> None:
    answer = Ask("one")
    answer.get()
    assert answer.usage == P.Usage(prompt_tokens=1, completion_tokens=2, cached_tokens=0)


def test_a_variable_in_an_f_string_is_refused(program: P.Program) -> None:
    with pytest.raises(P.ProgramError, match="variable_in_text"):
        f"{Ask('one')}"


def test_the_repr_does_not_show_the_value() -> None:
    assert repr(P.SemanticVariable("secret", name="key")) == "<SemanticVariable key: ready>"


# --- transforms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "value"),
    [
        (lambda v: v.strip(), "<Q: x A: >|strip"),
        (lambda v: v.json("a.0"), "<Q: x A: >|json_field"),
        (lambda v: v.regex(r"\d+", group=0), "<Q: x A: >|regex_group"),
        (lambda v: v.regex("x").strip(), "<Q: x A: >|regex_group|strip"),
        (lambda v: P.join([v, v], " + "), "<Q: x A: > + <Q: x A: >"),
        (lambda v: P.join([v]), "<Q: x A: >"),
        (lambda v: P.format("a {{input:v}} b {{input:c}}", v=v, c="d"), "a <Q: x A: > b d"),
    ],
)
def test_transforms_run_on_the_server(
    transform: Callable[[P.SemanticVariable], P.SemanticVariable],
    value: str,
    program: P.Program,
) -> None:
    assert transform(Ask("x")).get() == value


def test_a_transformed_value_can_be_read_by_a_call(program: P.Program) -> None:
    assert Ask(Ask("x").strip()).get() == "<Q: <Q: x A: >|strip A: >"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: P.join([]), "nothing_to_join"),
        (lambda: P.format("{{input:x}}"), "placeholder_without_parameter"),
        (lambda: P.format("text", x="y"), "unused_parameter"),
        (lambda: P.format("{{output:x}}"), "output_in_format"),
        (lambda: P.format("{{put:x}}"), "unknown_placeholder"),
    ],
)
def test_wrong_transforms_are_refused(make: Callable[[], object], code: str) -> None:
    with pytest.raises(P.ProgramError) as caught:
        make()
    assert caught.value.code == code


# --- failures -----------------------------------------------------------------------------------


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
    def slow(prompt: str) -> str:
        time.sleep(0.5)
        return prompt

    fake.generate = slow
    begin_s = time.monotonic()
    with pytest.raises(P.WaitTimeout):
        Ask("one").get(timeout_s=0.05)
    assert time.monotonic() - begin_s < 0.4


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
    Ask("two").get()
    assert fake.count("GET") == 5


def test_a_defect_in_reading_answers_whoever_waits(
    program: P.Program, fake: FakeParrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(request: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(P.ParrotClient, "submit_stream", lambda self, request: explode(request))
    with pytest.raises(P.ServerFailed, match="reader_failed"):
        Ask("one").get()


# --- threads ------------------------------------------------------------------------------------


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
