"""Calls that need no engine: pruned, merged with equal ones, answered from the cache."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core import optimiser
from parrot_backend.core.chat import ChatOptions, ResponseFormat, Tool
from parrot_backend.core.config import CoreConfig, OptimiserConfig
from parrot_backend.core.criteria import UNANNOTATED
from parrot_backend.core.events import (
    CallSpec,
    RequestFinished,
    RequestUsage,
    ValueRequested,
    Wanted,
)
from parrot_backend.core.ids import AttemptId, NodeId, SessionId, VariableId, WaiterId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.optimiser import is_repeatable, repetition_key
from parrot_backend.core.prompt import Input, Output, PartKind, PromptPart, Text
from parrot_backend.core.result_cache import ResultCache
from parrot_backend.core.sampling import Sampling
from tests.core.audit import audited_driver
from tests.core.hypothesis_settings import examples
from tests.core.random_programs import Program, control_programs, programs
from tests.helpers.builders import (
    LATENCY,
    THROUGHPUT,
    make_body,
    make_engine,
    make_map,
    make_request,
    make_steps,
    make_transform,
    make_wanted,
    read,
    request_id,
    var,
)
from tests.helpers.core_driver import CoreDriver, Death, Outcome, Refusal, Reply, reply_text

GREEDY = Sampling(max_tokens=16, temperature=0.0)
OFF = OptimiserConfig(prunes=False, merges=False)


def greedy(name: str, text: str = "say a word", *, session: str = "s", **rest: Any) -> CallSpec:
    """Return a deterministic call with one output, named like it."""
    own = SessionId(session)
    sampling = replace(GREEDY, **rest.pop("sampling", {}))
    return CallSpec(name, (Text(text), Output(var(name, own), sampling)), **rest)


def make_driver(*engines: Any, behaviour: Any = None, **optimiser: Any) -> CoreDriver:
    config = CoreConfig(optimiser=OptimiserConfig(**optimiser), max_attempts=2)
    return audited_driver(
        *(engines or (make_engine(max_requests=1),)), config=config, behaviour=behaviour
    )


def submit(driver: CoreDriver, session: str, *calls: CallSpec, **rest: Any) -> None:
    """Submit calls of a quiet session; somebody waits for each output."""
    own = SessionId(session)
    wanted = [Wanted(var(c.name, own), LATENCY, WaiterId(f"{session}.{c.name}")) for c in calls]
    given: dict[str, Any] = {"wanted": wanted, "quiet": True} | rest
    driver.submit(*calls, session=own, **given)


def value(driver: CoreDriver, waiter: str) -> str | None:
    return driver.answers[WaiterId(waiter)].value


def finish(driver: CoreDriver, text: str = "word") -> None:
    """Let the oldest running request end."""
    attempt = next(iter(driver.running))
    usage = RequestUsage(prompt_tokens=9, completion_tokens=3, cached_tokens=1, engine_s=2.0)
    driver.send(RequestFinished(attempt, text, (1, 2), "stop", usage))


def node(driver: CoreDriver, name: str, session: str = "s") -> Request:
    own = SessionId(session)
    found = driver.coordinator.session(own).graph.nodes[request_id(name, session=own)]
    assert isinstance(found, Request)
    return found


# --- pruning ---------------------------------------------------------------------------------

GRAPHS: dict[str, tuple[tuple[Any, ...], list[str], set[str]]] = {
    "what is read by what is wanted": (make_steps("a", "b: a", "c: b"), ["c"], {"a", "b", "c"}),
    "a leaf beside it": (make_steps("a", "b: a", "c: a"), ["b"], {"a", "b"}),
    "a whole branch": (make_steps("a", "b", "c: b", "d: c"), ["a"], {"a"}),
    "through a transform": (
        (*make_steps("a", "b"), make_transform("t", read("a"))),
        ["t"],
        {"a"},
    ),
    "what reads a transform that nobody wants": (
        (*make_steps("a", "b"), make_transform("t", read("b"))),
        ["a"],
        {"a"},
    ),
    "two that are wanted": (make_steps("a", "b", "c"), ["a", "c"], {"a", "c"}),
}


@pytest.mark.parametrize(("nodes", "wanted", "run"), GRAPHS.values(), ids=GRAPHS.keys())
def test_calls_that_nobody_can_want_are_not_run(
    nodes: tuple[Any, ...], wanted: list[str], run: set[str]
) -> None:
    driver = make_driver(behaviour=lambda start: Reply(reply_text(start.parts)))
    driver.submit(*nodes, close=True, wanted=[make_wanted(n, waiter=n) for n in wanted])
    driver.run()
    requests = [n for n in driver.coordinator.session(SessionId("s")).graph.nodes.values()]
    ended = {n.output: n.state for n in requests if isinstance(n, Request)}
    assert {n.rpartition(".")[2] for n, s in ended.items() if s is NodeState.FINISHED} == run
    assert all(value(driver, name) is not None for name in wanted)
    assert driver.coordinator.optimiser.num_pruned == len(ended) - len(run)


def test_who_asks_for_what_was_pruned_is_told() -> None:
    driver = make_driver()
    driver.submit(*make_steps("a", "b", "c: b"), close=True, wanted=[make_wanted("a", waiter="w")])
    driver.get("c", "late")
    failure = driver.answers[WaiterId("late")].failure
    assert failure is not None
    assert (failure.code, failure.origin) == ("pruned", "c")


@pytest.mark.parametrize(
    ("close", "wanted", "prunes"),
    [(False, ["a"], True), (True, [], True), (True, ["a"], False)],
    ids=["more may come", "nothing is said of what is wanted", "switched off"],
)
def test_all_calls_run_where_they_may_be_wanted(
    close: bool, wanted: list[str], prunes: bool
) -> None:
    driver = make_driver(make_engine(), prunes=prunes)
    driver.submit(*make_steps("a", "b"), close=close, wanted=[make_wanted(n) for n in wanted])
    assert len(driver.running) == 2
    assert driver.coordinator.optimiser.num_pruned == 0


def test_a_later_submit_that_closes_prunes_nothing() -> None:
    driver = make_driver(make_engine())
    driver.submit(*make_steps("a"))
    wanted = [make_wanted("c", waiter="w")]
    driver.submit(*make_steps("b", "c"), is_new=False, close=True, wanted=wanted)
    assert len(driver.running) == 3


def test_what_a_control_node_may_read_is_needed_and_one_that_nobody_wants_is_not_run() -> None:
    body = make_body("v", "v: item given")
    nodes: tuple[Any, ...] = (*make_steps("list", "given", "alone"), make_map("m", "list", body))
    for wanted, run in (("m", {"list", "given"}), ("alone", {"alone"})):
        driver = make_driver(make_engine())
        driver.submit(*nodes, close=True, wanted=[make_wanted(wanted, waiter="w")])
        assert {str(driver.request_of(a).output).partition(".")[2] for a in driver.running} == run


# --- what repeats ----------------------------------------------------------------------------

TOOL = Tool("f", "", "{}")
REPEATS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "greedy": ({"temperature": 0.0}, {}, True),
    "seeded": ({"seed": 0}, {}, True),
    "drawn": ({}, {}, False),
    "with tools": ({"seed": 1}, {"tools": (TOOL,)}, False),
    "with tools it may not call": ({"seed": 1}, {"tools": (TOOL,), "tool_choice": "none"}, True),
}


@pytest.mark.parametrize(("sampling", "chat", "expected"), REPEATS.values(), ids=REPEATS.keys())
def test_what_is_the_same_each_time(
    sampling: dict[str, Any], chat: dict[str, Any], expected: bool
) -> None:
    request = make_request()
    request.sampling, request.chat = Sampling(**sampling), ChatOptions(**chat)
    assert is_repeatable(request) is expected


def keyed(**changes: Any) -> bytes:
    request = make_request(model="m")
    request.sampling = GREEDY
    request.parts = (PromptPart(PartKind.CONSTANT, "ab"), PromptPart(PartKind.VALUE, "c"))
    for name, to in changes.items():
        setattr(request, name, to)
    return repetition_key(request)


DIFFERENT: dict[str, dict[str, Any]] = {
    "tenant": {"tenant": "other"},
    "model": {"model": "n"},
    "sampling": {"sampling": replace(GREEDY, max_tokens=17)},
    "form": {"sampling": replace(GREEDY, response_format=ResponseFormat("json_object"))},
    "tools": {"chat": ChatOptions(tools=(TOOL,), tool_choice="none")},
    "text": {"parts": (PromptPart(PartKind.CONSTANT, "ab"), PromptPart(PartKind.VALUE, "d"))},
    "where it is cut": {
        "parts": (PromptPart(PartKind.CONSTANT, "a"), PromptPart(PartKind.VALUE, "bc"))
    },
    "tokens": {
        "parts": (PromptPart(PartKind.CONSTANT, "ab"), PromptPart(PartKind.VALUE, "c", (1,)))
    },
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_all_that_decides_a_result_is_in_its_key(changes: dict[str, Any]) -> None:
    assert keyed(**changes) != keyed()


def test_equal_requests_have_equal_keys() -> None:
    assert keyed(id=NodeId("other"), session=SessionId("t"), output=VariableId("t.x")) == keyed()


# --- merging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_queued", [False, True], ids=["while it runs", "while it is queued"])
def test_an_equal_call_gets_the_result_of_the_first(is_queued: bool) -> None:
    driver = make_driver()
    if is_queued:
        submit(driver, "x", greedy("a", "another", session="x"))
    submit(driver, "s", greedy("a"))
    submit(driver, "t", greedy("b", session="t"))
    assert len(driver.running) == 1
    assert driver.coordinator.num_waiting == 1 + is_queued
    assert "s.a" in (node(driver, "b", "t").reason or "")
    for _ in range(1 + is_queued):
        finish(driver)
    assert (value(driver, "s.a"), value(driver, "t.b")) == ("word", "word")
    assert driver.running == {}
    assert driver.coordinator.optimiser.num_merged == 1
    assert driver.coordinator.num_unfinished_calls == driver.coordinator.num_waiting == 0


def test_usage_of_a_merged_call_is_cached_and_the_rest_is_that_of_the_first() -> None:
    driver = make_driver()
    submit(driver, "s", greedy("a"), greedy("b"))
    finish(driver)
    first, merged = driver.answers[WaiterId("s.a")], driver.answers[WaiterId("s.b")]
    assert merged.usage == RequestUsage(prompt_tokens=9, completion_tokens=3, cached_tokens=9)
    assert first.usage is not None
    assert first.usage.cached_tokens == 1
    assert merged.finish_reason == first.finish_reason
    assert driver.coordinator.variable(var("b")).token_ids == (1, 2)
    assert (node(driver, "b").attempts, node(driver, "b").engine) == (0, None)


def test_what_reads_a_merged_call_goes_on() -> None:
    driver = make_driver()
    after = CallSpec("c", (Text("now "), Input(var("b")), Output(var("c"), Sampling())))
    submit(driver, "s", greedy("a"), greedy("b"), after)
    finish(driver)
    assert [driver.request_of(a).output for a in driver.running] == ["s.c"]


APART: dict[str, tuple[CallSpec, dict[str, Any]]] = {
    "another prompt": (greedy("b", "say two words", session="t"), {}),
    "another seed": (greedy("b", session="t", sampling={"seed": 3}), {}),
    "drawn": (greedy("b", session="t", sampling={"temperature": 1.0}), {}),
    "another tenant": (greedy("b", session="t"), {"tenant": "other"}),
    "its text may be read meanwhile": (greedy("b", session="t"), {"quiet": False}),
}


@pytest.mark.parametrize(("call", "rest"), APART.values(), ids=APART.keys())
def test_other_calls_run(call: CallSpec, rest: dict[str, Any]) -> None:
    driver = make_driver(make_engine())
    submit(driver, "s", greedy("a"))
    submit(driver, "t", call, **rest)
    assert len(driver.running) == 2


def test_nothing_is_merged_when_it_is_off() -> None:
    driver = make_driver(make_engine(), merges=False)
    submit(driver, "s", greedy("a"), greedy("b"))
    assert len(driver.running) == 2


def test_an_urgent_call_does_not_wait_for_an_equal_one_that_is_not_and_is_queued() -> None:
    driver = make_driver()
    submit(driver, "x", greedy("a", "another", session="x"))
    submit(driver, "s", greedy("a"), wanted=[Wanted(var("a"), THROUGHPUT, WaiterId("s.a"))])
    submit(driver, "t", greedy("b", session="t"))
    finish(driver)
    assert [driver.request_of(a).session for a in driver.running] == ["t"]
    finish(driver, "own")
    finish(driver, "other")
    assert (value(driver, "t.b"), value(driver, "s.a")) == ("own", "other")


def test_a_merged_call_that_becomes_urgent_runs_before_one_that_is_not() -> None:
    driver = make_driver()
    submit(driver, "x", greedy("a", "another", session="x"))
    submit(driver, "s", greedy("a"), wanted=[Wanted(var("a"), THROUGHPUT, WaiterId("s.a"))])
    own = var("b", SessionId("t"))
    submit(driver, "t", greedy("b", session="t"), wanted=[Wanted(own, THROUGHPUT, WaiterId("t.b"))])
    assert driver.coordinator.num_waiting == 2
    driver.send(ValueRequested(WaiterId("now"), own, LATENCY))
    finish(driver)
    assert [driver.request_of(a).session for a in driver.running] == ["t"]
    finish(driver, "own")
    finish(driver, "other")
    assert (value(driver, "now"), value(driver, "s.a")) == ("own", "other")


def test_merged_calls_that_become_urgent_together_run_once() -> None:
    driver = make_driver()
    submit(driver, "x", greedy("a", "another", session="x"))
    submit(driver, "s", greedy("a"), wanted=[Wanted(var("a"), THROUGHPUT, WaiterId("s.a"))])
    names = [f"b{number}" for number in range(40)]
    own = SessionId("t")
    made = var("made", own)
    joins = CallSpec("joins", (*(Input(var(name, own)) for name in names), Output(made, GREEDY)))
    calls = [greedy(name, session="t") for name in names]
    submit(driver, "t", *calls, joins, wanted=[Wanted(made, THROUGHPUT, WaiterId("t"))])
    assert driver.coordinator.optimiser.num_following == 40
    with pytest.MonkeyPatch.context() as patch:
        compared = []

        def count(leader: Any, request: Request) -> bool:
            compared.append(request)
            return is_ahead(leader, request)

        is_ahead = optimiser._is_ahead
        patch.setattr(optimiser, "_is_ahead", count)
        driver.send(ValueRequested(WaiterId("now"), made, LATENCY))
    assert len(compared) <= 4 * 40
    assert driver.coordinator.optimiser.num_following == 39
    for text in ("another", "own", "all", "other"):
        finish(driver, text)
    assert (value(driver, "now"), value(driver, "s.a")) == ("all", "other")


def test_nobody_waits_for_an_equal_call_that_became_less_urgent() -> None:
    driver = make_driver()
    submit(driver, "x", greedy("a", "another", session="x"))
    submit(driver, "s", greedy("a"))
    submit(driver, "t", greedy("b", session="t"))
    assert driver.coordinator.optimiser.num_following == 1
    leader = node(driver, "a")
    leader.objective = UNANNOTATED
    driver.coordinator.optimiser.reconsider(leader)
    finish(driver)
    assert driver.coordinator.num_unfinished_calls == 2
    assert not driver.coordinator.optimiser.num_following


def test_who_comes_to_stream_a_merged_call_gets_its_text_at_the_end() -> None:
    driver = make_driver()
    submit(driver, "s", greedy("a"), greedy("b"))
    driver.get("b", "late", stream=True)
    finish(driver)
    assert driver.streamed[WaiterId("late")] == "word"


@pytest.mark.parametrize("retryable", [False, True])
def test_when_the_first_fails_the_others_run_by_themselves(retryable: bool) -> None:
    failed: list[AttemptId] = []

    def behave(start: Any) -> Outcome:
        if start.node == "s.a#0":
            failed.append(start.attempt)
            return Refusal(is_retryable=retryable)
        return Reply("fine")

    driver = make_driver(make_engine(), behaviour=behave)
    submit(driver, "s", greedy("a"), greedy("b"), greedy("c"))
    driver.run()
    assert len(failed) == 1 + retryable
    assert driver.answers[WaiterId("s.a")].failure is not None
    assert (value(driver, "s.b"), value(driver, "s.c")) == ("fine", "fine")
    assert (node(driver, "b").attempts, node(driver, "c").attempts) == (1, 1)
    assert driver.coordinator.optimiser.num_merged == 0


def test_when_the_first_is_cancelled_the_next_takes_its_place() -> None:
    driver = make_driver(make_engine())
    for session in "stu":
        submit(driver, session, greedy("a", session=session))
    driver.cancel("a")
    assert [driver.request_of(a).session for a in driver.running] == ["t"]
    finish(driver)
    assert (value(driver, "t.a"), value(driver, "u.a")) == ("word", "word")


def test_a_merged_call_that_is_cancelled_ends_no_other() -> None:
    driver = make_driver()
    for session in "stu":
        submit(driver, session, greedy("a", session=session))
    driver.cancel("a", session=SessionId("t"))
    finish(driver)
    assert (value(driver, "s.a"), value(driver, "t.a"), value(driver, "u.a")) == (
        "word",
        None,
        "word",
    )
    assert driver.coordinator.optimiser.num_following == 0


# --- the cache -------------------------------------------------------------------------------


def test_a_result_is_kept_for_calls_to_come() -> None:
    driver = make_driver(result_cache_bytes=10_000)
    submit(driver, "s", greedy("a"))
    finish(driver)
    submit(driver, "t", greedy("b", session="t"))
    assert value(driver, "t.b") == "word"
    assert driver.running == {}
    assert driver.coordinator.optimiser.num_cache_hits == 1
    submit(driver, "u", greedy("b", session="u"), tenant="other")
    assert len(driver.running) == 1


def test_a_long_chain_of_known_results_ends_at_once() -> None:
    names = [f"v{i}" for i in range(3_000)]
    calls = [greedy("v0", "begin")]
    calls += [
        CallSpec(name, (Text("go on "), Input(var(before)), Output(var(name), GREEDY)))
        for before, name in pairwise(names)
    ]
    driver = CoreDriver(
        make_engine(),
        config=CoreConfig(optimiser=OptimiserConfig(result_cache_bytes=10_000)),
        behaviour=lambda start: Reply("same", 0.0, num_pieces=0),
    )
    driver.submit(*calls, wanted=[make_wanted(names[-1], waiter="w")], quiet=True)
    driver.run()
    assert value(driver, "w") == "same"
    assert driver.coordinator.optimiser.num_cache_hits == len(names) - 2


def test_failures_are_not_kept() -> None:
    driver = make_driver(behaviour=lambda start: Refusal(), result_cache_bytes=10_000)
    submit(driver, "s", greedy("a"))
    driver.run()
    submit(driver, "t", greedy("b", session="t"))
    assert len(driver.running) == 1


RESULT = RequestFinished(AttemptId(""), "x" * 100, None, "stop", RequestUsage(1, 1))


@examples(60)
@given(
    keys=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2000)), max_size=40),
    max_bytes=st.integers(0, 12_000),
)
def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago(
    keys: list[tuple[str, int]], max_bytes: int
) -> None:
    cache, used = ResultCache(max_bytes), dict[bytes, int]()
    for letter, length in keys:
        key = letter.encode()
        found = cache.get(key)
        assert (found is not None) == (key in used)
        if found is None:
            cache.put(key, replace(RESULT, text="x" * length))
            # An entry takes 1,200 bytes, and four for each character.
            used |= {key: length} if 1200 + 4 * length <= max_bytes else {}
        else:
            assert len(found.text) == used[key]
            used[key] = used.pop(key)
        assert cache.num_bytes <= max_bytes
        # What is left are those used last.
        used = dict(list(used.items())[len(used) - len(cache) :])
        assert list(cache._results) == list(used)


# --- against running everything --------------------------------------------------------------


ANY_PROGRAM = programs() | control_programs()


def made_greedy(program: Program) -> Program:
    """Return the program with all calls outside of bodies deterministic."""

    def change(spec: Any) -> Any:
        if not isinstance(spec, CallSpec):
            return spec
        segments = tuple(
            Output(s.variable, replace(s.sampling, temperature=0.0)) if isinstance(s, Output) else s
            for s in spec.segments
        )
        return replace(spec, segments=segments)

    return replace(program, nodes=tuple(map(change, program.nodes)))


def unlucky_driver(luck: list[int], optimiser: OptimiserConfig) -> CoreDriver:
    """Return a driver with one engine that fails now and then, and one that does not."""
    fate = iter(luck)

    def behave(start: Any) -> Outcome:
        if start.engine != "safe":
            match next(fate, 9):
                case 0:
                    return Death(0.5)
                case 1 | 2:
                    return Refusal(is_retryable=True, said="half")
        return Reply(reply_text(start.parts))

    return audited_driver(
        make_engine("e0", max_requests=2),
        make_engine("safe", max_requests=1),
        config=CoreConfig(optimiser=optimiser, max_attempts=99, splice=True),
        behaviour=behave,
    )


LUCK = st.lists(st.integers(0, 9), max_size=12)
OPTIMISERS = st.builds(
    OptimiserConfig, st.booleans(), st.booleans(), st.sampled_from([0, 4_000, 1_000_000])
)


@examples(100)
@given(program=ANY_PROGRAM.map(made_greedy), luck=LUCK, optimiser=OPTIMISERS)
def test_what_is_wanted_of_a_program_is_the_same(
    program: Program, luck: list[int], optimiser: OptimiserConfig
) -> None:
    answers = []
    for config in (OFF, optimiser):
        driver = unlucky_driver(luck, config)
        wanted = [Wanted(var(n), c, WaiterId(n)) for n, c in program.wanted.items()]
        externals: dict[str, str | None] = dict(program.externals)
        driver.submit(*program.nodes, variables=externals, wanted=wanted, close=True, quiet=True)
        driver.run()
        assert len(driver.answers) == len(wanted)
        answers.append({w: (a.state, a.value) for w, a in driver.answers.items()})
    assert answers[0] == answers[1]


SESSIONS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
)


def few_texts(session: SessionId, shape: list[tuple[int, int]]) -> list[CallSpec]:
    """Return calls with one of three texts each, some of which read one before."""
    calls: list[CallSpec] = []
    for number, (text, back) in enumerate(shape):
        before = [Input(var(f"v{number - back}", session))] if 0 < back <= number else []
        own = Output(var(f"v{number}", session), GREEDY)
        calls.append(CallSpec(f"v{number}", (Text(f"text {text} "), *before, own)))
    return calls


@examples(100)
@given(
    sessions=SESSIONS,
    luck=LUCK,
    optimiser=OPTIMISERS,
    cancelled=st.lists(st.integers(0, 3), max_size=2),
)
def test_what_is_wanted_of_sessions_side_by_side_is_the_same(
    sessions: list[list[tuple[int, int]]],
    luck: list[int],
    optimiser: OptimiserConfig,
    cancelled: list[int],
) -> None:
    answers = []
    for config in (OFF, optimiser):
        driver = unlucky_driver(luck, config)
        for number, shape in enumerate(sessions):
            calls = few_texts(SessionId(f"s{number}"), shape)
            submit(driver, f"s{number}", *calls, quiet=number != 2)
        for number in cancelled:
            if number < len(sessions):
                driver.cancel(session=SessionId(f"s{number}"))
        driver.run()
        assert len(driver.answers) == sum(map(len, sessions))
        assert driver.coordinator.optimiser.num_following == 0
        kept = [w for w in driver.answers if int(w[1]) not in cancelled]
        answers.append({w: driver.answers[w].value for w in kept})
    assert answers[0] == answers[1]
    assert None not in answers[0].values()
