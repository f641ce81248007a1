"""Splicing: what is handed to an engine ahead of its time, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from parrot_backend.core.commands import (
    AbortRequest,
    Command,
    RetainPrefix,
    StageRequest,
    StartRequest,
    UpdateRequest,
)
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.events import (
    CallSpec,
    EngineInfo,
    EngineTimer,
    Event,
    RequestFailed,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import NodeState
from parrot_backend.core.prompt import PartKind, PromptPart, Role
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import MAX_PROMPT_CHARS, JsonField, Strip
from tests.core.audit import audited_driver, mentions, snapshot, splicing_of
from tests.core.steps import count_steps
from tests.helpers.builders import (
    LATENCY,
    SESSION,
    THROUGHPUT,
    make_call,
    make_engine,
    make_step,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import (
    CoreDriver,
    Refusal,
    Reply,
    finished,
    name_of_attempt,
    of_type,
    reply_to_prompt,
    started,
)

#: 100 tokens of text that prompts begin with, by the first estimate.
HEAD = "x" * 400
#: Leaves the estimate of lengths as it is.
SAYS_NOTHING = RequestUsage(0, 2)
E0 = EngineId("e0")
End = Callable[[CoreDriver], list[Command]]


def splicer(
    name: str = "e0",
    *,
    max_requests: int = 16,
    splices: bool = True,
    keeps_prefixes: bool = False,
    capacity_tokens: int = 10_000,
) -> EngineInfo:
    return make_engine(
        name,
        max_requests=max_requests,
        keeps_prefixes=keeps_prefixes,
        takes_updates=True,
        splices=splices,
        capacity_tokens=capacity_tokens,
    )


def make_driver(*engines: EngineInfo, config: CoreConfig | None = None) -> CoreDriver:
    return audited_driver(*(engines or (splicer(),)), config=config or CoreConfig(splice=True))


def outputs(*names: str, model: str | None = None, head: str = HEAD) -> CallSpec:
    """Return a call with several outputs and a text before each."""
    segments = [segment for name in names for segment in (f"{name}: ", write(name))]
    return make_call("c", head, *segments, model=model)


def running(*names: str, engine: EngineInfo | None = None) -> CoreDriver:
    """Return a driver where the first output of a call is being made."""
    driver = make_driver(engine or splicer())
    driver.submit(outputs(*(names or ("a", "b"))))
    return driver


def finish(
    driver: CoreDriver, output: str, text: str = "value", *, splices: bool = False
) -> list[Command]:
    return driver.finish(output, text, usage=SAYS_NOTHING, splices=splices)


def staged(commands: Iterable[Command]) -> list[str]:
    """Return what is staged, as ``call#step~number after call#step~try``."""
    return [
        f"{name_of_attempt(stage.attempt)} after {name_of_attempt(stage.after)}"
        for stage in of_type(commands, StageRequest)
    ]


def dropped(commands: Iterable[Command]) -> list[str]:
    """Return what is taken back before it has begun."""
    return [name_of_attempt(c.attempt) for c in of_type(commands, AbortRequest) if c.is_early]


def aborted(commands: Iterable[Command]) -> list[str]:
    return [name_of_attempt(c.attempt) for c in of_type(commands, AbortRequest) if not c.is_early]


def text(value: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, value)


# --- what is staged ----------------------------------------------------------------------------


def test_next_output_is_staged_when_the_one_before_starts() -> None:
    commands = make_driver().submit(outputs("a", "b", "d"))
    assert staged(commands) == ["c#1~s0 after c#0~1"]
    kinds = [type(command) for command in commands]
    assert kinds.index(StartRequest) < kinds.index(StageRequest)


def test_staged_request_says_everything_an_engine_needs() -> None:
    driver = make_driver()
    call = make_call(
        "c", Role("user"), read("x"), write("a", max_tokens=7), " end", write("b", max_tokens=9)
    )
    commands = driver.submit(
        call, variables={"x": "in"}, wanted=[make_wanted("b", THROUGHPUT)], tenant="somebody"
    )
    (stage,) = of_type(commands, StageRequest)
    request = driver.request("b")
    assert stage == StageRequest(
        engine=E0,
        attempt=AttemptId("s.c#1~s0"),
        after=AttemptId("s.c#0~1"),
        gap=2,
        session=SESSION,
        tenant="somebody",
        model="m",
        parts=(
            PromptPart(PartKind.ROLE, "user"),
            PromptPart(PartKind.VALUE, "in"),
            PromptPart(PartKind.VALUE, "?", ()),
            text(" end"),
        ),
        sampling=Sampling(max_tokens=9),
        objective=request.objective,
        remaining=0,
        max_gap_tokens=7,
    )
    assert stage.objective.objective_class is ObjectiveClass.THROUGHPUT


@pytest.mark.parametrize(
    "call",
    [
        make_call("c", HEAD, write("a")),
        make_call("c", HEAD, write("a"), read("x"), write("b")),
        make_call("c", HEAD, write("a"), read("a", Strip()), write("b")),
        make_call("c", HEAD, write("a"), " once more ", read("a"), write("b")),
        make_call("c", HEAD, write("a"), read("known", JsonField("a")), write("b")),
        make_call("c", HEAD, write("a", stop=("\n",)), write("b")),
        make_call("c", HEAD, write("a", max_tokens=None), write("b")),
    ],
    ids=[
        "no further output",
        "something else is missing",
        "read a second time in another form",
        "read a second time as it is",
        "what follows cannot be transformed",
        "stop strings",
        "no limit of the length",
    ],
)
def test_only_what_surely_goes_on_is_staged(call: CallSpec) -> None:
    commands = make_driver().submit(call, variables={"x": None, "known": "no json"})
    assert (len(started(commands)), staged(commands)) == (1, [])


@pytest.mark.parametrize(
    "call",
    [
        make_call("c", HEAD, write("a"), write("b")),
        make_call("c", HEAD, write("a"), read("known"), write("b")),
        make_call("c", HEAD, write("a"), read("known", Strip()), Role("user"), write("b")),
        make_call("c", HEAD, write("a"), " and ", write("b", stop=("\n",))),
    ],
    ids=["at once", "a value", "a transformed value", "stop strings of its own"],
)
def test_what_goes_on_is_staged(call: CallSpec) -> None:
    assert staged(make_driver().submit(call, variables={"known": " v "})) == ["c#1~s0 after c#0~1"]


def test_output_that_another_call_reads_is_not_staged() -> None:
    call = make_call("a", HEAD, write("a"))
    begins_alike = make_call("d", HEAD, read("a"), write("d"))
    assert staged(make_driver().submit(call, begins_alike, make_step("b", "a"))) == []


def test_later_output_of_a_call_that_reads_another_is_not_staged() -> None:
    driver = make_driver()
    driver.submit(make_call("d", HEAD, write("p"), read("a"), write("q")), make_step("a", "p"))
    commands = finish(driver, "p")
    assert (started(commands), staged(commands)) == (["a#0~1"], [])


def test_request_with_another_input_is_staged_when_only_the_output_is_missing() -> None:
    driver = make_driver(splicer(max_requests=1))
    call = make_call("c", HEAD, write("a"), read("x"), write("b"))
    driver.submit(make_step("first"), call, variables={"x": None})
    driver.set("x", "v")
    assert staged(finish(driver, "first")) == ["c#1~s0 after c#0~1"]


def test_value_that_comes_while_the_output_is_made_is_too_late() -> None:
    driver = make_driver()
    driver.submit(make_call("c", HEAD, write("a"), read("x"), write("b")), variables={"x": None})
    assert staged(driver.set("x", "v")) == []
    assert started(finish(driver, "a")) == ["c#1~1"]


@pytest.mark.parametrize(("is_on", "splices"), [(False, True), (True, False), (False, False)])
def test_nothing_is_staged_unless_switched_on_and_for_engines_that_splice(
    is_on: bool, splices: bool
) -> None:
    driver = make_driver(splicer(splices=splices), config=CoreConfig(splice=is_on))
    assert staged(driver.submit(outputs("a", "b"))) == []
    assert started(finish(driver, "a", splices=True)) == ["c#1~1"]


def test_splicing_is_off_by_default() -> None:
    assert not CoreConfig().splice


def test_request_is_staged_on_the_engine_of_the_output_before() -> None:
    driver = make_driver(splicer("e0", max_requests=1), splicer("e1", max_requests=1))
    commands = driver.submit(make_step("first"), outputs("a", "b"))
    (stage,) = of_type(commands, StageRequest)
    assert stage.engine == driver.request("a").engine == "e1"


@pytest.mark.parametrize("model", [None, "n"])
def test_staged_request_has_the_model_of_its_call(model: str | None) -> None:
    engine = make_engine(models=("m", "n"), splices=True)
    (stage,) = of_type(make_driver(engine).submit(outputs("a", "b", model=model)), StageRequest)
    assert stage.model == (model or "m")


def test_call_without_a_model_that_came_before_its_engine_is_staged() -> None:
    driver = audited_driver(config=CoreConfig(splice=True))
    driver.submit(outputs("a", "b"))
    (stage,) = of_type(driver.join(splicer()), StageRequest)
    assert stage.model == "m"
    finish(driver, "a", splices=True)
    assert driver.request("b").model == "m"


def test_staged_request_still_waits() -> None:
    driver = running()
    request = driver.request("b")
    assert (request.state, request.attempt, request.attempts) == (NodeState.WAITING, None, 0)
    assert (request.ready_s, request.placed_s, request.engine) == (None, None, None)
    assert driver.coordinator.num_waiting == 0
    assert driver.coordinator.num_active_calls == 1
    assert driver.coordinator.engines[E0].running.keys() == {"s.c#0~1"}


# --- the engine goes on ------------------------------------------------------------------------


def test_spliced_request_runs_at_once_without_a_start() -> None:
    driver = running()
    commands = finish(driver, "a", "text", splices=True)
    assert (started(commands), dropped(commands)) == ([], [])
    request = driver.request("b")
    assert (request.state, request.attempt) == (NodeState.RUNNING, "s.c#1~s0")
    assert (request.engine, request.attempts) == ("e0", 1)
    assert request.parts == (
        text(HEAD),
        text("a: "),
        PromptPart(PartKind.VALUE, "text"),
        text("b: "),
    )
    assert driver.coordinator.num_waiting == 0


def test_spliced_request_answers_like_any() -> None:
    driver = running()
    driver.get("b", "w", stream=True)
    finish(driver, "a", splices=True)
    driver.say("b", "te")
    driver.say("b", "xt")
    commands = finish(driver, "b", "text")
    assert driver.streamed == {"w": "text"}
    assert driver.answer("w").value == "text"
    assert (aborted(commands), dropped(commands)) == ([], [])
    assert driver.coordinator.num_unfinished_calls == 0


def test_spliced_request_stages_the_one_after() -> None:
    driver = running("a", "b", "d")
    assert staged(finish(driver, "a", splices=True)) == ["c#2~s1 after c#1~s0"]
    finish(driver, "b", splices=True)
    assert driver.request("d").attempt == "s.c#2~s1"
    finish(driver, "d", "end")
    assert driver.variable("d").value == "end"


def test_long_call_goes_on_to_its_end() -> None:
    driver = running(*(f"v{i}" for i in range(8)))
    for i in range(7):
        assert started(finish(driver, f"v{i}", splices=True)) == []
    finish(driver, "v7")
    assert driver.coordinator.num_unfinished_calls == 0


def test_what_is_kept_of_a_run_is_right() -> None:
    driver = running()
    driver.now_s = 3.0
    finish(driver, "a", splices=True)
    request = driver.request("b")
    assert (request.ready_s, request.placed_s, request.first_token_s) == (3.0, 3.0, None)
    assert request.reason == "goes on where the output before it ended"
    driver.now_s = 4.0
    driver.say("b", "t")
    driver.now_s = 5.0
    finish(driver, "b", "text")
    assert (request.first_token_s, request.finished_s) == (4.0, 5.0)
    assert request.usage == SAYS_NOTHING


def test_account_of_the_engine_is_of_what_goes_on_there() -> None:
    driver = running()
    engine = driver.coordinator.engines[E0]
    finish(driver, "a", splices=True)
    assert engine.running.keys() == {"s.c#1~s0"}
    finish(driver, "b")
    assert (engine.running, engine.used_tokens, engine.latency_tokens) == ({}, 0, 0)


def account_of_second(*, splices: bool) -> int:
    driver = running(engine=splicer(keeps_prefixes=True))
    finish(driver, "a", "v" * 400, splices=splices)
    return driver.coordinator.engines[E0].used_tokens


def test_spliced_request_takes_as_much_as_one_that_is_started() -> None:
    assert account_of_second(splices=True) == account_of_second(splices=False)


def test_latency_of_a_spliced_request_counts() -> None:
    driver = make_driver()
    driver.submit(outputs("a", "b"), wanted=[make_wanted("b", LATENCY)])
    finish(driver, "a", splices=True)
    engine = driver.coordinator.engines[E0]
    assert engine.latency_tokens == engine.used_tokens > 0


def test_spliced_request_takes_the_slot_before_any_other() -> None:
    driver = running(engine=splicer(max_requests=1))
    driver.submit(make_step("other"), is_new=False)
    assert started(finish(driver, "a", splices=True)) == []
    assert driver.running_outputs == ["b"]
    assert started(finish(driver, "b")) == ["other#0~1"]


def test_spliced_request_goes_on_even_beyond_the_capacity() -> None:
    driver = running(engine=splicer(capacity_tokens=250))
    driver.submit(make_step("other", max_tokens=100), is_new=False)
    assert driver.running_outputs == ["a", "other"]
    finish(driver, "a", "v" * 800, splices=True)
    assert driver.running_outputs == ["other", "b"]


def test_engine_counts_as_holding_the_prompt_of_what_goes_on_there() -> None:
    driver = make_driver(splicer("e0"), splicer("e1"))
    driver.submit(outputs("a", "b"))
    finish(driver, "a", splices=True)
    index = driver.coordinator._fleet.scheduler.prefixes
    assert index.engines_holding(driver.request("b").prefixes[-1].hash) == ("e0",)


def test_engine_that_goes_on_is_watched() -> None:
    driver = running()
    finish(driver, "a", splices=True)
    assert EngineTimer(E0) in driver.timers
    driver.run_until(driver.config.engine_stall_s + 1.0)
    assert driver.closed_engines == [E0]
    assert driver.request("b").state is NodeState.READY


def test_spliced_request_that_fails_is_tried_again_in_the_usual_way() -> None:
    driver = running()
    driver.get("b", "w", stream=True)
    finish(driver, "a", splices=True)
    driver.say("b", "half")
    commands = driver.fail("b", is_retryable=True)
    assert started(commands) == ["c#1~2"]
    assert driver.streamed == {"w": ""}
    finish(driver, "b", "text")
    assert driver.answer("w").value == "text"


def test_spliced_request_whose_engine_is_lost_is_tried_again_elsewhere() -> None:
    driver = make_driver(splicer("e0"), splicer("e1"))
    driver.submit(outputs("a", "b", "d"))
    finish(driver, "a", splices=True)
    commands = driver.lose("e0")
    assert (started(commands), dropped(commands)) == (["c#1~2"], [])
    assert staged(commands) == ["c#2~s2 after c#1~2"]


def test_spliced_attempt_counts_as_a_try() -> None:
    driver = make_driver(config=CoreConfig(splice=True, max_attempts=1))
    driver.submit(outputs("a", "b"))
    finish(driver, "a", splices=True)
    assert started(driver.fail("b", is_retryable=True)) == []
    assert driver.request("b").state is NodeState.FAILED


def test_spliced_request_that_is_cancelled_is_aborted_as_a_running_one() -> None:
    driver = running()
    finish(driver, "a", splices=True)
    commands = driver.cancel("b")
    assert (aborted(commands), dropped(commands)) == (["c#1~s0"], [])


def test_spliced_request_hears_of_changes_like_any() -> None:
    driver = running()
    finish(driver, "a", splices=True)
    (update,) = of_type(driver.get("b", "w", LATENCY), UpdateRequest)
    assert (update.engine, update.attempt) == ("e0", "s.c#1~s0")


def test_engine_hears_what_changed_while_the_request_was_staged() -> None:
    driver = running()
    commands = driver.get("b", "w", LATENCY)
    commands += finish(driver, "a", splices=True)
    updates = {u.attempt: u.objective.objective_class for u in of_type(commands, UpdateRequest)}
    assert updates.get(AttemptId("s.c#1~s0")) is ObjectiveClass.LATENCY


def test_prompt_and_output_before_are_kept_for_what_goes_on() -> None:
    driver = running("a", "b", "d", engine=splicer(keeps_prefixes=True))
    commands = finish(driver, "a", splices=True)
    assert [c.attempt for c in of_type(commands, RetainPrefix)].count(AttemptId("s.c#0~1")) == 1
    finish(driver, "b", splices=True)
    finish(driver, "d")
    assert driver.kept == {E0: set()}


@pytest.mark.xfail(strict=True, reason="no start, so nobody says what to keep of the prompt")
def test_engine_keeps_what_others_read_of_the_prompt_of_what_goes_on() -> None:
    def kept(*, splices: bool) -> set[bytes]:
        driver = make_driver(splicer(keeps_prefixes=True))
        driver.submit(
            outputs("a", "b"),
            make_call("e", HEAD, "a: ", read("a"), "b: ", read("x"), write("e")),
            variables={"x": None},
        )
        finish(driver, "a", splices=splices)
        return driver.kept[E0]

    assert kept(splices=True) == kept(splices=False)


def test_prompt_that_waits_for_what_goes_on_is_filled() -> None:
    driver = make_driver(splicer(keeps_prefixes=True))
    driver.submit(outputs("a", "b"), make_step("e", "b", prompt="e" * 400))
    assert driver.filled_outputs == []
    finish(driver, "a", splices=True)
    assert driver.filled_outputs == ["e"]


# --- the engine does not go on -----------------------------------------------------------------


def test_request_that_is_not_spliced_is_taken_back_and_started() -> None:
    driver = running("a", "b", "d")
    commands = finish(driver, "a")
    assert (dropped(commands), started(commands)) == (["c#1~s0"], ["c#1~1"])
    kinds = [type(command) for command in commands]
    assert kinds.index(AbortRequest) < kinds.index(StartRequest)
    assert staged(commands) == ["c#2~s1 after c#1~1"]
    assert len(splicing_of(driver.coordinator)) == 1


def test_attempt_that_nobody_staged_is_not_gone_on_with() -> None:
    driver = running()
    attempt = driver.attempt("a")
    odd = (AttemptId("s.c#1~1"), AttemptId("s.c#1~s9"), attempt)
    commands = driver.send(finished(attempt, "text", spliced=odd))
    assert (dropped(commands), started(commands)) == (["c#1~s0"], ["c#1~1"])


def test_stale_end_of_the_output_before_splices_nothing() -> None:
    driver = running()
    first, stage = driver.attempt("a"), next(iter(driver.staged))
    driver.fail("a", is_retryable=True)
    before = snapshot(driver)
    assert driver.coordinator.handle(finished(first, "late", spliced=(stage,)), driver.now_s) == []
    assert snapshot(driver) == before
    assert driver.request("b").state is NodeState.WAITING


@pytest.mark.parametrize(
    "say",
    [
        lambda attempt: TokensGenerated(attempt, "early", 1),
        lambda attempt: finished(attempt, "early"),
        lambda attempt: RequestFailed(attempt, "engine_failed", "it did"),
        lambda attempt: RequestFailed(attempt, "engine_failed", "it did", is_retryable=True),
    ],
    ids=["text", "end", "failure", "failure that may pass"],
)
@pytest.mark.parametrize("is_taken_back", [False, True])
def test_nothing_is_heard_of_a_staged_attempt(
    say: Callable[[AttemptId], Event], is_taken_back: bool
) -> None:
    driver = running()
    (attempt,) = driver.staged
    if is_taken_back:
        finish(driver, "a")
    before = snapshot(driver)
    assert driver.coordinator.handle(say(attempt), driver.now_s) == []
    assert snapshot(driver) == before


# --- it will not come to that ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda driver: driver.fail("a"), (["c#1~s0"], [])),
        (lambda driver: driver.cancel("a"), (["c#1~s0"], ["c#0~1"])),
        (lambda driver: driver.cancel(), (["c#1~s0"], ["c#0~1"])),
        (lambda driver: driver.close(), (["c#1~s0"], ["c#0~1"])),
        (lambda driver: driver.leave("w", cancel=True), (["c#1~s0"], ["c#0~1"])),
        (lambda driver: driver.lose("e0"), ([], [])),
    ],
    ids=["producer fails", "producer cancelled", "all cancelled", "closed", "left", "engine lost"],
)
def test_staged_request_is_taken_back(end: End, expected: tuple[list[str], list[str]]) -> None:
    driver = make_driver()
    driver.submit(outputs("a", "b"), wanted=[make_wanted("b", waiter="w")])
    commands = end(driver)
    assert (dropped(commands), aborted(commands)) == expected
    assert len(splicing_of(driver.coordinator)) == 0
    assert driver.staged == {}


def test_staged_request_alone_is_taken_back_when_it_is_cancelled() -> None:
    driver = running()
    driver.get("a", "w")
    commands = driver.cancel("b")
    assert (dropped(commands), aborted(commands)) == (["c#1~s0"], [])
    finish(driver, "a", "text")
    assert driver.answer("w").value == "text"


def test_engine_may_have_gone_on_with_what_was_cancelled_meanwhile() -> None:
    driver = running()
    driver.get("a", "w")
    producer, (attempt,) = driver.attempt("a"), tuple(driver.staged)
    driver.cancel("b")
    commands = driver.send(finished(producer, "text", spliced=(attempt,)))
    assert (started(commands), dropped(commands), aborted(commands)) == ([], [], [])
    assert driver.request("b").state is NodeState.CANCELLED


def test_request_is_staged_anew_when_the_output_before_is_tried_again() -> None:
    driver = running()
    commands = driver.fail("a", is_retryable=True)
    assert (dropped(commands), staged(commands)) == (["c#1~s0"], ["c#1~s1 after c#0~2"])
    finish(driver, "a", splices=True)
    assert driver.request("b").attempt == "s.c#1~s1"


def test_request_is_staged_anew_where_the_output_before_is_tried_again() -> None:
    driver = make_driver(splicer("e0"), splicer("e1"))
    driver.submit(outputs("a", "b"))
    (stage,) = of_type(driver.lose("e0"), StageRequest)
    assert (stage.engine, stage.after) == ("e1", "s.c#0~2")


def test_output_before_that_is_tried_again_on_a_plain_engine_stages_nothing() -> None:
    driver = make_driver(splicer("e0"), splicer("e1", splices=False))
    driver.submit(outputs("a", "b"))
    commands = driver.fail("a", is_retryable=True)
    assert (started(commands), staged(commands)) == (["c#0~2"], [])
    assert started(finish(driver, "a")) == ["c#1~1"]


def test_staged_request_is_taken_back_when_the_last_try_has_failed() -> None:
    driver = make_driver(config=CoreConfig(splice=True, max_attempts=1))
    driver.submit(outputs("a", "b"))
    assert dropped(driver.fail("a", is_retryable=True)) == ["c#1~s0"]
    assert driver.request("b").state is NodeState.FAILED


def test_staged_request_is_taken_back_while_the_output_before_waits_to_be_tried_again() -> None:
    driver = make_driver(config=CoreConfig(splice=True, retry_delay_s=5.0))
    driver.submit(outputs("a", "b"))
    assert dropped(driver.fail("a", is_retryable=True)) == ["c#1~s0"]
    driver.run_until(6.0)
    assert driver.staged_outputs == ["b"]


def test_prompt_that_becomes_too_long_is_taken_back_though_the_engine_goes_on() -> None:
    driver = make_driver()
    driver.submit(outputs("a", "b", head="x" * (MAX_PROMPT_CHARS - 100)))
    commands = finish(driver, "a", "v" * 200, splices=True)
    assert dropped(commands) == ["c#1~s0"]
    assert driver.running == {}
    assert driver.request("b").state is NodeState.FAILED


def test_nothing_is_left_of_a_closed_session() -> None:
    driver = running("a", "b", "d")
    finish(driver, "a", splices=True)
    driver.close()
    assert mentions(driver, "s") == []


# --- many --------------------------------------------------------------------------------------


def test_attempt_ids_are_never_used_twice() -> None:
    driver = audited_driver(
        splicer("e0", max_requests=2),
        splicer("e1", max_requests=2),
        config=CoreConfig(splice=True, max_attempts=9),
        behaviour=lambda start: (
            Refusal(is_retryable=True) if start.attempt.endswith(("~1", "s3")) else Reply("v")
        ),
        splice_behaviour=lambda stage: not stage.attempt.endswith("5"),
    )
    driver.submit(outputs("a", "b", "d", "e", "f", "g"))
    driver.run()
    commands = [command for _, _, commands in driver.history for command in commands]
    ids = [c.attempt for c in commands if isinstance(c, StartRequest | StageRequest)]
    assert len(ids) == len(set(ids)) > 10
    assert driver.coordinator.num_unfinished_calls == 0


@pytest.mark.parametrize("placement", ["paper", "fcfs", "least_loaded"])
def test_calls_side_by_side_go_on_each_for_itself(placement: str) -> None:
    driver = audited_driver(
        splicer(max_requests=3),
        config=CoreConfig(SchedulerConfig(placement=placement), splice=True),  # type: ignore[arg-type]
        behaviour=reply_to_prompt,
    )
    calls = [
        make_call(f"c{i}", f"{i}", write(f"a{i}"), "and", write(f"b{i}"), write(f"d{i}"))
        for i in range(6)
    ]
    driver.submit(*calls)
    driver.run()
    commands = [command for _, _, commands in driver.history for command in commands]
    assert started(commands) == [f"c{i}#0~1" for i in range(6)]
    assert driver.coordinator.num_unfinished_calls == 0


def test_cost_of_staging_does_not_depend_on_how_much_is_staged() -> None:
    def steps(number: int) -> int:
        driver = CoreDriver(
            make_engine(capacity_tokens=10**9, max_requests=10**6, splices=True),
            config=CoreConfig(splice=True),
        )
        driver.submit(
            *(make_call(f"c{i}", "p", write(f"a{i}"), "and", write(f"b{i}")) for i in range(number))
        )
        return count_steps(lambda: driver.finish("a0", "text", splices=True))

    assert steps(200) < 1.2 * steps(20)
