"""What both kinds of clients cost on an idle engine, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import GraphSubmitted
from parrot_backend.core.ids import name_of
from parrot_backend.sim.delays import Delays
from parrot_backend.sim.program import Arrival, Constant, Output, Program
from parrot_backend.sim.spec import ClientKind, ClientSpec, Delay
from tests.core.hypothesis_settings import examples
from tests.sim.constant_engine import DECODE_S, PREFILL_S, make_spec
from tests.sim.programs import make_call, make_chain, make_program, run
from tests.sim.random_programs import programs

TRIP_S, OVERHEAD_S = 0.25, 0.02
KINDS: tuple[ClientKind, ...] = ("graph", "calls")


def client(kind: ClientKind) -> ClientSpec:
    return ClientSpec(kind, Delay(TRIP_S, TRIP_S), OVERHEAD_S)


def job_s(program: Program, kind: ClientKind) -> float:
    """Return the time of a program that is alone, on an engine without a cache."""
    specs = [make_spec(caches_prefixes=False)]
    records, _ = run([Arrival(3.0, program)], client(kind), specs)
    assert [record.failed for record in records.jobs] == [""]
    return records.jobs[0].finished_s - 3.0


@pytest.mark.parametrize("num_calls", [1, 2, 7])
def test_a_chain_costs_a_round_trip_for_each_call_or_for_all(num_calls: int) -> None:
    program = make_chain(num_calls, prompt_tokens=100, output_tokens=20)
    first_s = 100 * PREFILL_S + 20 * DECODE_S
    work_s = first_s + (num_calls - 1) * (first_s + 20 * PREFILL_S)
    once_s = TRIP_S + OVERHEAD_S
    assert job_s(program, "graph") == pytest.approx(work_s + once_s)
    assert job_s(program, "calls") == pytest.approx(work_s + num_calls * once_s)


@pytest.mark.parametrize(("kind", "trips"), [("graph", 2), ("calls", 2)])
def test_who_thinks_between_two_calls_pays_a_round_trip_more(kind: ClientKind, trips: int) -> None:
    think = make_call("b", Output("a"), Constant("tool", 30), think_s=1.5)
    work_s = (100 + 20 + 30) * PREFILL_S + 40 * DECODE_S
    expected_s = work_s + 1.5 + trips * (TRIP_S + OVERHEAD_S)
    assert job_s(make_program(make_call("a"), think), kind) == pytest.approx(expected_s)


@pytest.mark.parametrize("kind", KINDS)
def test_who_thinks_before_the_first_call_sends_it_late(kind: ClientKind) -> None:
    program = make_program(make_call("a", think_s=1.5))
    work_s = 100 * PREFILL_S + 20 * DECODE_S
    assert job_s(program, kind) == pytest.approx(1.5 + work_s + TRIP_S + OVERHEAD_S)


def test_a_call_may_wait_for_another_without_reading_it() -> None:
    program = make_program(make_call("a"), make_call("b", Constant("b", 10), after=("a",)))
    records, _ = run([Arrival(0.0, program)])
    first, second = records.calls
    assert second.ready_s == first.finished_s
    assert second.prompt_tokens == 10


def values_of(program: Program, kind: ClientKind) -> dict[str, str]:
    found: dict[str, str] = {}

    def observe(_event: object, _now_s: float, commands: object) -> None:
        assert isinstance(commands, list)
        answers = [c for c in commands if isinstance(c, AnswerWaiter) and c.value is not None]
        found.update({name_of(a.variable): a.value or "" for a in answers})

    records, ending = run([Arrival(0.0, program)], client(kind), observer=observe)
    assert (ending.reason, [r.failed for r in records.jobs]) == ("done", [""])
    return {name: found[name] for name, _ in program.wanted}


@examples(60)
@given(programs())
def test_both_kinds_get_the_same_outputs(program: Program) -> None:
    assert values_of(program, "graph") == values_of(program, "calls")


@examples(60)
@given(programs())
def test_both_kinds_make_the_same_prompts(program: Program) -> None:
    """Except for calls that nobody wants, which end with their session."""
    found = []
    for kind in KINDS:
        records, _ = run([Arrival(0.0, program)], client(kind))
        found.append({r.call: r.prompt_tokens for r in records.calls})
    graph, calls = found
    both = graph.keys() & calls.keys()
    assert {name for name, _ in program.wanted} <= both
    assert {name: graph[name] for name in both} == {name: calls[name] for name in both}


def test_a_deadline_counts_from_when_the_server_has_the_submit() -> None:
    for kind in KINDS:
        submits: list[GraphSubmitted] = []

        def observe(
            event: object, _now_s: float, _commands: object, to: list[GraphSubmitted] = submits
        ) -> None:
            if isinstance(event, GraphSubmitted):
                to.append(event)

        criteria = Criteria(CriteriaKind.LATENCY, deadline_s=2.0)
        program = make_program(make_call("a"), criteria=criteria)
        run([Arrival(10.0, program)], client(kind), observer=observe)
        told = submits[0].wanted[0].criteria
        assert told is not None
        assert told.deadline_s == pytest.approx(10.0 + OVERHEAD_S + TRIP_S / 2 + 2.0)


def test_users_of_two_tenants_are_two_whatever_their_names() -> None:
    sessions = dict[str, set[str]]()

    def observe(event: object, _now_s: float, _commands: object) -> None:
        if isinstance(event, GraphSubmitted):
            sessions.setdefault(event.tenant, set()).add(event.session)

    chain = make_chain(2)
    arrivals = [
        Arrival(0.1 * number, replace(chain, tenant=tenant), "ann")
        for number, tenant in enumerate(("default", "a", "b", "a"))
    ]
    records, _ = run(arrivals, client("calls"), observer=observe)
    assert [record.failed for record in records.jobs] == [""] * 4
    assert [len(found) for found in sessions.values()] == [1, 1, 1]
    assert len(set[str]().union(*sessions.values())) == 3


def test_calls_of_a_user_share_a_session_and_those_of_a_job_do() -> None:
    sessions: list[tuple[str, bool]] = []

    def observe(event: object, _now_s: float, _commands: object) -> None:
        if isinstance(event, GraphSubmitted):
            sessions.append((event.session, event.is_new))

    chain = make_chain(2)
    arrivals = [Arrival(0.0, chain, "ann"), Arrival(0.1, chain), Arrival(0.2, chain, "ann")]
    arrivals.append(Arrival(100.0, chain, "ann"))
    records, _ = run(arrivals, client("calls"), observer=observe)
    assert [record.failed for record in records.jobs] == [""] * 4
    users = [session for session, _ in sessions if session.startswith("u")]
    assert len(users) == 6
    assert len(set(users)) == 1  # after a pause, too
    assert [is_new for session, is_new in sessions if session == users[0]].count(True) == 2
    assert [session for session, _ in sessions if session not in users] == ["j1", "j1"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_server_is_asked_again(kind: ClientKind) -> None:
    config = CoreConfig(tokens_per_char=1.0, max_unfinished_calls=1)
    arrivals = [Arrival(0.0, make_program(make_call("a", tokens=150))) for _ in range(2)]
    records, _ = run(arrivals, client(kind), config=config)
    assert [record.failed for record in records.jobs] == ["", ""]
    late = records.jobs[1]
    assert late.finished_s > records.jobs[0].finished_s


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_stays_full_is_given_up(kind: ClientKind) -> None:
    config = CoreConfig(tokens_per_char=1.0, max_unfinished_calls=1)
    arrivals = [Arrival(0.0, make_program(make_call("a", tokens=5_000))) for _ in range(2)]
    records, _ = run(arrivals, client(kind), config=config)
    assert sorted(record.failed.partition(":")[0] for record in records.jobs) == ["", "saturated"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_fits_no_engine_fails_its_job(kind: ClientKind) -> None:
    records, _ = run(
        [Arrival(0.0, make_chain(2, prompt_tokens=90, output_tokens=20))],
        client(kind),
        [make_spec(max_model_len=120)] * 2,
    )
    assert [r.call for r in records.calls] == ["c0"]
    assert records.jobs[0].failed.startswith("prompt_too_long: ")


@examples(100)
@given(st.integers(0, 2**70), st.integers(0, 10_000), st.integers(0, 50))
def test_delays_stay_within_their_bounds(seed: int, job: int, number: int) -> None:
    delays = Delays(Delay(0.2, 0.3), seed)
    assert 0.2 <= delays.draw_s(job, number) <= 0.3
    assert delays.draw_s(job, number) == delays.draw_s(job, number)


def test_delays_are_uniform() -> None:
    delays = Delays(Delay(0.0, 1.0), 7)
    drawn = sorted(delays.draw_s(job, number) for job in range(100) for number in range(100))
    assert max(abs(value - rank / 10_000) for rank, value in enumerate(drawn)) < 0.02
    assert len(set(drawn)) == 10_000


@pytest.mark.parametrize("delay", [Delay(0.2, 0.1), Delay(-0.1, 0.1), Delay(0.0, float("inf"))])
def test_impossible_delays_are_rejected(delay: Delay) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Delays(delay, 1)
