"""What is found in the texts of calls, on their way through the core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.commands import StartRequest
from parrot_backend.core.config import CoreConfig, DiscoveryConfig, SchedulerConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria, CriteriaKind, Objective, ObjectiveClass
from parrot_backend.core.events import CallSpec, RequestFinished, RequestUsage, Wanted
from parrot_backend.core.ids import SessionId, name_of
from parrot_backend.core.nodes import Request
from parrot_backend.core.prompt import Role, Text
from tests.core.hypothesis_settings import examples
from tests.helpers.agent_traffic import TrafficCall, metagpt_calls
from tests.helpers.builders import SESSION, make_engine, make_submission, var, write
from tests.helpers.core_driver import CoreDriver, of_type, started

_UNSTATED = Criteria(CriteriaKind.UNSTATED)
_RUN = SESSION
_BIG = make_engine(capacity_tokens=10**7, latency_capacity_tokens=10**7, max_requests=64)


def chat(name: str, texts: Sequence[str], session: SessionId, stage: str | None = None) -> CallSpec:
    roles = [Role("system"), *(Role("user") for _ in texts[1:])]
    said = [part for role, text in zip(roles, texts, strict=True) for part in (role, Text(text))]
    segments = (*said, Role("assistant"), write(name, session=session, max_tokens=500))
    return CallSpec(name, segments, stage=stage)


def ask(
    driver: CoreDriver,
    name: str,
    texts: Sequence[str],
    session: SessionId = _RUN,
    stage: str | None = None,
    criteria: Criteria = _UNSTATED,
) -> Request:
    """Submit a call as OpenAI's API does, and return its request."""
    is_new = driver.coordinator.sessions.get(session) is None
    event = make_submission(
        chat(name, texts, session, stage),
        session=session,
        is_new=is_new,
        wanted=[Wanted(var(name, session), criteria)],
    )
    driver.send(replace(event, discovers=True))
    return requests(driver, session)[name]


def requests(driver: CoreDriver, session: SessionId = _RUN) -> dict[str, Request]:
    nodes = driver.coordinator.session(session).graph.nodes.values()
    return {name_of(node.output): node for node in nodes if isinstance(node, Request)}


def play(driver: CoreDriver, calls: Sequence[TrafficCall], session: SessionId = _RUN) -> None:
    ended = 0
    for number, call in enumerate(calls):
        for index in range(ended, call.waits):
            driver.finish(f"c{index}", calls[index].reply, session=session)
        ended = max(ended, call.waits)
        ask(driver, f"c{number}", call.texts, session)
    for index in range(ended, len(calls)):
        driver.finish(f"c{index}", calls[index].reply, session=session)


def test_the_graph_of_the_coding_task() -> None:
    driver, calls = CoreDriver(_BIG), list(metagpt_calls(4))
    play(driver, calls)

    made = requests(driver)

    name_of_call = {call.name: f"c{number}" for number, call in enumerate(calls)}
    for number, call in enumerate(calls):
        found = made[f"c{number}"].found
        assert found is not None
        assert {name_of(read) for read in found.reads} == {name_of_call[r] for r in call.reads}
        total = found.value_chars + found.repeated_chars + found.fresh_chars
        assert total == sum(map(len, call.texts))
        assert made[f"c{number}"].depth == found.stage
    kinds = {(call.step, _template(made[f"c{n}"])) for n, call in enumerate(calls)}
    assert len(kinds) == len({step for step, _ in kinds}) == len({kind for _, kind in kinds}) == 4


def _template(request: Request) -> str:
    assert request.found is not None
    return request.found.template


def test_a_stage_that_is_waited_for_is_a_task_group_in_the_second_run() -> None:
    driver = CoreDriver(_BIG)
    play(driver, list(metagpt_calls(3, seed=1)))
    assert {r.objective.objective_class for r in requests(driver).values()} == {
        ObjectiveClass.LATENCY
    }
    driver.close(_RUN)

    second = SessionId("second")
    play(driver, list(metagpt_calls(3, seed=2)), second)

    made = requests(driver, second)
    assert [made[f"c{n}"].remaining for n in (0, 1, 4, 7, 10, 13, 16, 19)] == [*range(7, -1, -1)]
    groups = [made[f"c{n}"].objective.group for n in range(22)]
    assert groups[0] is None
    assert groups[19:] == [None] * 3
    assert len({*groups[1:19]}) == 6
    assert all(len({*groups[at : at + 3]}) == 1 for at in range(1, 19, 3))


def _play_in_one_session(driver: CoreDriver, session: SessionId, seeds: Sequence[int]) -> None:
    """Play several runs side by side in one session, one call of each at a time."""
    runs = [list(metagpt_calls(3, seed=seed)) for seed in seeds]
    ended = [0] * len(runs)
    for number in range(len(runs[0])):
        for which, calls in enumerate(runs):
            for index in range(ended[which], calls[number].waits):
                driver.finish(f"r{which}c{index}", calls[index].reply, session=session)
            ended[which] = max(ended[which], calls[number].waits)
            ask(driver, f"r{which}c{number}", calls[number].texts, session)
    for which, calls in enumerate(runs):
        for index in range(ended[which], len(calls)):
            driver.finish(f"r{which}c{index}", calls[index].reply, session=session)


def test_runs_in_one_session_are_learnt_one_by_one() -> None:
    driver = CoreDriver(_BIG)
    _play_in_one_session(driver, _RUN, [1, 2])
    driver.close(_RUN)

    alone = SessionId("alone")
    play(driver, list(metagpt_calls(3, seed=3)), alone)
    made = requests(driver, alone)
    assert [made[f"c{n}"].remaining for n in (0, 1, 4, 7, 10, 13, 16, 19)] == [*range(7, -1, -1)]
    assert made["c0"].objective == Objective(ObjectiveClass.LATENCY, is_bounded=False)


def test_calls_of_different_runs_are_no_group() -> None:
    driver = CoreDriver(_BIG)
    play(driver, list(metagpt_calls(3, seed=1)))
    driver.close(_RUN)

    both = SessionId("both")
    _play_in_one_session(driver, both, [2, 3])

    made = requests(driver, both)
    groups = [{made[f"r{which}c{n}"].objective.group for n in range(1, 4)} for which in (0, 1)]
    assert [len(members) for members in groups] == [1, 1]
    assert None not in groups[0] | groups[1]
    assert groups[0] != groups[1]


def test_calls_that_read_nothing_are_a_group_where_one_will_read_them_all() -> None:
    driver = CoreDriver(_BIG)
    for run in range(2):
        session = SessionId(f"s{run}")
        said = [f"Part {n} of {run} says: the quay is {'very ' * (n + 9)}long." for n in range(4)]
        made = [ask(driver, f"m{n}", ["Sum up.", f"Sum up {n}."], session) for n in range(4)]
        for n in range(4):
            driver.finish(f"m{n}", said[n], session=session)
        ask(driver, "r", ["Join all.", *said], session)
        driver.finish("r", "x", session=session)
        driver.close(session)

    assert made[0].objective.group is not None
    assert len({request.objective for request in made}) == 1


def test_nothing_is_kept_of_what_was_expected_of_a_session_that_has_ended() -> None:
    driver = CoreDriver(_BIG)
    for name in ("one", "two"):
        session = SessionId(name)
        play(driver, list(metagpt_calls(2)), session)
        driver.close(session)

    annotator = driver.coordinator._progress.annotator
    assert annotator._expected_of == {}


@pytest.mark.parametrize(
    "hint",
    [
        Criteria(CriteriaKind.LATENCY),
        Criteria(CriteriaKind.LATENCY, deadline_s=1.0),
        Criteria(CriteriaKind.LATENCY, ttft_s=0.1),
        Criteria(CriteriaKind.LATENCY, tpot_s=0.02),
    ],
)
def test_what_the_caller_says_goes_before_what_is_foreseen(hint: Criteria) -> None:
    driver = CoreDriver(_BIG)
    play(driver, list(metagpt_calls(3, seed=1)))
    driver.close(_RUN)
    second, calls = SessionId("second"), list(metagpt_calls(3, seed=2))
    ask(driver, "c0", calls[0].texts, second)
    driver.finish("c0", calls[0].reply, session=second)

    hinted = ask(driver, "c1", calls[1].texts, second, criteria=hint)
    plain = ask(driver, "c2", calls[2].texts, second)

    assert hinted.objective.objective_class is ObjectiveClass.LATENCY
    assert plain.objective.objective_class is ObjectiveClass.TASK_GROUP


def test_siblings_share_the_beginning_of_a_message_and_are_placed_together() -> None:
    config = CoreConfig(scheduler=SchedulerConfig(placement="paper"))
    engines = [
        make_engine(name, capacity_tokens=10**6, latency_capacity_tokens=10**6)
        for name in ("e0", "e1", "e2")
    ]
    driver = CoreDriver(*engines, config=config)
    plan = "First the harbour is dredged, then the quay is built, and at last the crane. " * 20
    system = "You are a planner."
    ask(driver, "plan", [system, "Plan the harbour."])
    driver.finish("plan", plan)

    made = [ask(driver, f"part{n}", [system, f"The plan: {plan}\nDo part {n}."]) for n in range(4)]

    inside = [{beginning.boundary for beginning in r.beginnings} for r in made]
    assert [len({b.hash for b in one}) for one in inside] == [len(r.beginnings) for r in made]
    longest = max(boundary.tokens for boundary in set.intersection(*inside))
    assert longest > 0.9 * made[0].prompt_tokens
    assert len({r.engine for r in made}) == 1
    assert "holds a prefix" in (made[3].reason or "")


def test_of_many_beginnings_the_longest_are_kept() -> None:
    driver, said = CoreDriver(_BIG), list[str]()
    for number in range(40):
        ask(driver, f"c{number}", ["You report.", f"Report {number}."])
        said.append("".join(Random(number).choices(ascii_lowercase, k=100)))
        driver.finish(f"c{number}", said[-1])

    joined = ask(driver, "joined", ["You join.", " and then ".join(said)])

    assert joined.found is not None
    assert len(joined.found.reads) == 40
    assert len(joined.beginnings) == 32
    assert joined.beginnings[-1].boundary.tokens > 0.9 * joined.prompt_tokens


def test_engines_are_told_beginnings_beside_the_boundaries() -> None:
    driver = CoreDriver(_BIG)
    play(driver, list(metagpt_calls(2)))

    starts = of_type((c for _, _, commands in driver.history for c in commands), StartRequest)
    assert any(start.beginnings for start in starts)
    for start in starts:
        request = requests(driver)[name_of(start.node).partition("#")[0]]
        assert start.beginnings == request.beginnings
        inside = {beginning.boundary.hash for beginning in start.beginnings}
        assert inside.isdisjoint(boundary.hash for boundary in start.prefixes)
        for beginning in start.beginnings:
            assert 0 < beginning.offset <= len(start.parts[beginning.part].text)


def test_outputs_are_reserved_as_long_as_those_of_their_kind_were() -> None:
    driver = CoreDriver(_BIG)
    for number in range(10):
        ask(driver, f"c{number}", ["You sum up.", f"Sum up report {number}."])
        driver.finish(f"c{number}", "x", usage=RequestUsage(10, 20 + number))

    later = ask(driver, "later", ["You sum up.", "Sum up report 77."])
    other = ask(driver, "other", ["You tell stories.", "Tell a long one."])

    assert requests(driver)["c0"].need_tokens - requests(driver)["c0"].prompt_tokens == 500
    assert later.need_tokens - later.prompt_tokens == 29
    assert other.need_tokens - other.prompt_tokens == 500


def test_outputs_that_were_cut_say_nothing_of_how_long_others_get() -> None:
    driver = CoreDriver(_BIG)
    for number in range(10):
        ask(driver, f"c{number}", ["You sum up.", f"Sum up report {number}."])
        event = RequestFinished(
            driver.attempt(f"c{number}"),
            "x",
            token_ids=None,
            usage=RequestUsage(10, 5),
            finish_reason="length",
        )
        driver.send(event)

    later = ask(driver, "later", ["You sum up.", "Sum up report 77."])

    assert later.need_tokens - later.prompt_tokens == 500


def test_a_submit_that_declares_its_graph_is_not_looked_at() -> None:
    driver = CoreDriver(_BIG)
    driver.submit(chat("a", ["x"], _RUN), session=_RUN)

    assert requests(driver)["a"].found is None


def test_nothing_is_left_of_sessions_that_have_ended() -> None:
    driver = CoreDriver(_BIG)
    play(driver, list(metagpt_calls(2)))
    assert driver.coordinator.num_discovery_chars > 0

    driver.close(_RUN)

    assert driver.coordinator.num_discovery_chars == 0


def test_a_session_has_its_own_time_to_be_idle() -> None:
    driver = CoreDriver(_BIG, config=CoreConfig(session_ttl_s=600.0))
    event = make_submission(chat("a", ["x"], _RUN), session=_RUN)
    driver.send(replace(event, ttl_s=5.0))
    driver.finish("a", "x", session=_RUN)

    driver.run_until(10.0)

    assert driver.coordinator.sessions.get(_RUN) is None


_TEXTS = st.lists(
    st.sampled_from(["Write it down. ", "The harbour lies in a bay that opens to the north. " * 2]),
    max_size=3,
).map("".join)


@examples(60)
@given(st.lists(st.tuples(_TEXTS, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_discovery_changes_no_prompt_and_a_recorded_run_is_decided_alike(
    calls: list[tuple[str, bool, bool]],
) -> None:
    drivers = [
        CoreDriver(_BIG, config=CoreConfig(discovery=DiscoveryConfig(is_on=is_on)))
        for is_on in (True, False)
    ]
    for driver in drivers:
        value = ""
        for number, (text, goes_on, fails) in enumerate(calls):
            prompt = f"{number} {text}{value if goes_on else ''}"
            ask(driver, f"c{number}", ["Be brief.", prompt])
            if fails:
                driver.fail(f"c{number}")
            else:
                value = f"{text}: answer {number} to what was asked of the harbour's keeper."
                driver.finish(f"c{number}", value)
    with_it, without = ([r.parts for r in requests(d).values()] for d in drivers)
    assert with_it == without
    again = Coordinator(drivers[0].config)
    for event, now_s, commands in drivers[0].history:
        assert list(again.handle(event, now_s)) == commands
    assert started([c for _, _, cs in drivers[0].history for c in cs])


def test_what_the_client_calls_a_stage_tells_equal_prompts_apart() -> None:
    driver = CoreDriver(_BIG)
    texts = ["Be brief.", "Go on."]
    stages = [None, "plan", "write", "write", "Coder 1", "Coder 2"]
    made = [ask(driver, f"c{n}", texts, stage=stage) for n, stage in enumerate(stages)]

    assert [request.stage for request in made] == stages
    kinds = [_template(request) for request in made]
    assert len(set(kinds)) == 4
    assert kinds[2] == kinds[3]
    assert kinds[4] == kinds[5]
    assert {request.depth for request in made} == {0}


def test_a_stage_of_a_first_call_is_learnt_with_the_run() -> None:
    driver = CoreDriver(_BIG)
    for run in ("first", "second"):
        session = SessionId(run)
        made = ask(driver, "plan", ["Go on."], session, "plan")
        driver.finish("plan", "The harbour lies in a bay that opens to the north.", session=session)
        if run == "second":
            assert made.remaining == 1
            continue
        ask(driver, "next", ["The harbour lies in a bay that opens to the north."], session, "end")
        driver.finish("next", "Done.", session=session)
        driver.close(session)
