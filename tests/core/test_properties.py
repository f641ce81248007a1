"""What holds whatever happens, tried on many generated histories and programs.

Histories (``chaos.py``) are checked after every event (``audit.py``):

a. every waiter is answered exactly once, or has left;
b. a refused event changes nothing;
c. the same events give the same commands;
d. deduction depends neither on the order of wishes nor on how the graph was submitted;
e. the engines' accounts are the sums of what runs, within the capacities, and empty when idle;
f. nothing is left of ended sessions, and the counters return to zero;
g. a settled variable does not change;
h. nothing starts before its inputs are there, and prompts are the declared segments;
i. what ended attempts still say is not heard;
j. a cancellation stops exactly what only the cancelled needed;
k. nothing waits for ever while there is an engine with room;
l. prefixes are shared exactly by equal leading parts (``test_prefix.py``);
m. a prefix counts once for each unfinished request that begins so, engines keep only such
   prefixes, and hear once of each and once that it may go;
n. only what waits is filled, once at a time, and a fill never touches a request;
o. what is staged waits for one attempt on its engine, then runs under its name or is taken back;
p. the order of nodes is topological, also of those that control nodes bring forth.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.commands import FillPrefix, StageRequest, StartRequest
from parrot_backend.core.config import CoreConfig, EarlyFillConfig, SchedulerConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria, Objective, ObjectiveClass
from parrot_backend.core.deduction import deduce_objectives
from parrot_backend.core.events import NodeSpec
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId, VariableId, WaiterId, name_of
from parrot_backend.core.nodes import NodeState
from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.core.variable import VariableState
from tests.core.audit import BLIND, audited_driver
from tests.core.chaos import SCRIPTS, Chaos, Op
from tests.core.hypothesis_settings import examples
from tests.core.random_programs import (
    Program,
    control_programs,
    expected_objectives,
    inputs_of,
    interpret,
    programs,
)
from tests.helpers.builders import (
    SESSION,
    make_engine,
    make_graph,
    make_submission,
    make_wanted,
    var,
)
from tests.helpers.core_driver import (
    CoreDriver,
    Death,
    Outcome,
    Refusal,
    Reply,
    Silence,
    finished,
    reply_text,
)

SEEDS = st.integers(0, 11)

# --- histories -----------------------------------------------------------------------------------


@examples(200, shrinks=False)
@given(SEEDS, SCRIPTS)
def test_any_history_keeps_the_invariants_and_drains(seed: int, script: list[Op]) -> None:
    chaos = Chaos(seed)
    chaos.play(script)
    chaos.drain()
    chaos.end()


@examples(60, shrinks=False)
@given(SEEDS, SCRIPTS)
def test_any_history_with_two_models_keeps_the_invariants(seed: int, script: list[Op]) -> None:
    chaos = Chaos(seed, models=("m", "n"))
    chaos.play(script)
    chaos.drain()
    chaos.end()


@examples(60, shrinks=False)
@given(SEEDS, SCRIPTS)
def test_sessions_that_end_in_the_middle_leave_nothing(seed: int, script: list[Op]) -> None:
    chaos = Chaos(seed)
    chaos.play(script)
    chaos.end()


@examples(60, shrinks=False)
@given(SEEDS, SCRIPTS)
def test_same_events_give_the_same_commands(seed: int, script: list[Op]) -> None:
    chaos = Chaos(seed)
    chaos.play(script)
    again = Coordinator(chaos.config)
    for event, now_s, commands in chaos.driver.history:
        assert again.handle(event, now_s) == commands


@examples(60, shrinks=False)
@given(SEEDS, SCRIPTS)
def test_idle_engine_leaves_nothing_in_the_queue_of_one_model(seed: int, script: list[Op]) -> None:
    chaos = Chaos(seed)
    chaos.play([])
    for op in script:
        chaos.step(op)
        engines = chaos.driver.coordinator.engines.values()
        if any(not engine.running for engine in engines) and len(engines) == 1:
            assert chaos.driver.coordinator.num_waiting == 0


@pytest.mark.parametrize("seed", range(40))
def test_long_history_keeps_the_invariants(seed: int) -> None:
    rng = random.Random(seed)
    chaos = Chaos(seed, models=("m", "n") if seed % 4 == 0 else ("m",))
    numbers = rng.randbytes(4 * 300)
    chaos.play([tuple(numbers[i : i + 4]) for i in range(0, len(numbers), 4)])  # type: ignore[misc]
    chaos.drain()
    chaos.end()


def test_commands_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "from tests.core.chaos import Chaos\n"
        "import hashlib, random\n"
        "digest = hashlib.sha256()\n"
        "for seed in range(12):\n"
        "    rng = random.Random(seed)\n"
        "    chaos = Chaos(seed, models=('m', 'n'))\n"
        "    chaos.play([tuple(rng.randrange(256) for _ in range(4)) for _ in range(60)])\n"
        "    digest.update(repr(chaos.driver.history).encode())\n"
        "print(digest.hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    found = {
        subprocess.check_output(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root,
        )
        for seed in ("1", "2")
    }
    assert len(found) == 1


# --- programs ------------------------------------------------------------------------------------


def submit(driver: CoreDriver, program: Program) -> None:
    """Submit a program with a waiter for every variable."""
    driver.submit(
        *program.nodes,
        variables=dict(program.externals),
        wanted=[make_wanted(name, criteria) for name, criteria in program.wanted.items()],
    )
    for name in program.variables:
        driver.get(name, f"w-{name}")


def check_values(driver: CoreDriver, program: Program) -> None:
    """All values are those that a plain interpreter finds, inside instances too."""
    expected = interpret(program)
    assert values_of(driver, program) == {name: expected[name] for name in program.variables}
    has_failed = False
    for variable in driver.coordinator.session(SESSION).graph.variables.values():
        assert variable.is_settled
        has_failed |= variable.failure is not None
        if variable.value is not None:
            assert variable.value == expected[variable.name]
        elif expected[variable.name] is not None:
            assert variable.state is VariableState.CANCELLED  # what it was made for has failed
    if not has_failed:
        assert {name_of(v) for v in driver.coordinator.session(SESSION).graph.variables} == set(
            expected
        )


def values_of(driver: CoreDriver, program: Program) -> dict[str, str | None]:
    return {name: driver.answers[WaiterId(f"w-{name}")].value for name in program.variables}


ANY_PROGRAM = programs() | control_programs()


@examples(100)
@given(
    ANY_PROGRAM,
    st.sampled_from(["paper", *BLIND]),
    st.lists(st.sampled_from([1, 2, 16]), min_size=1, max_size=3),
)
def test_program_gives_the_values_that_a_plain_interpreter_gives(
    program: Program, placement: str, slots: list[int]
) -> None:
    driver = audited_driver(
        *(make_engine(f"e{i}", max_requests=n) for i, n in enumerate(slots)),
        config=CoreConfig(SchedulerConfig(placement=placement)),  # type: ignore[arg-type]
        behaviour=lambda start: Reply(reply_text(start.parts)),
    )
    submit(driver, program)
    driver.run()
    check_values(driver, program)


@examples(100)
@given(
    ANY_PROGRAM,
    st.lists(st.sampled_from([1, 2, 16]), min_size=1, max_size=3),
    st.lists(st.integers(0, 4), max_size=12),
    st.integers(1, 8),
)
def test_what_becomes_of_fills_changes_no_value(
    program: Program, slots: list[int], luck: list[int], min_tokens: int
) -> None:
    fate = iter(luck)

    def behave(_fill: FillPrefix) -> Outcome:
        match next(fate, 9):
            case 0:
                return Death(0.5)
            case 1 | 2:
                return Refusal(delay_s=0.3)
            case 3:
                return Silence()
        return Reply("", 0.7, num_pieces=0)

    kept = (
        make_engine(f"e{i}", max_requests=n, keeps_prefixes=True, takes_updates=i % 2 == 0)
        for i, n in enumerate(slots)
    )
    driver = audited_driver(
        make_engine("safe", max_requests=1),
        *kept,
        config=CoreConfig(
            prefix_index=PrefixIndexConfig(min_tokens=min_tokens),
            early_fill=EarlyFillConfig(min_tokens=min_tokens),
            max_attempts=9,
        ),
        behaviour=lambda start: Reply(reply_text(start.parts)),
        fill_behaviour=behave,
    )
    submit(driver, program)
    driver.run()
    check_values(driver, program)
    assert driver.fills == {}
    assert not any(driver.kept.values())


@examples(100)
@given(
    ANY_PROGRAM,
    st.lists(st.sampled_from([1, 2, 16]), min_size=1, max_size=2),
    st.lists(st.integers(0, 9), max_size=20),
    st.lists(st.booleans(), max_size=8),
)
def test_engines_that_go_on_by_themselves_change_no_value(
    program: Program, slots: list[int], luck: list[int], whims: list[bool]
) -> None:
    fate, whim = iter(luck), iter(whims)

    def behave(start: StartRequest) -> Outcome:
        if start.engine != "safe":
            match next(fate, 9):
                case 0:
                    return Death(0.5)
                case 1 | 2:
                    return Refusal(is_retryable=True, said="half")
        return Reply(reply_text(start.parts))

    def go_on(_stage: StageRequest) -> bool:
        return next(whim, True)

    splicing = (
        make_engine(f"e{i}", max_requests=n, keeps_prefixes=i == 0, splices=True)
        for i, n in enumerate(slots)
    )
    driver = audited_driver(
        *splicing,
        make_engine("safe", max_requests=1),
        config=CoreConfig(max_attempts=99, splice=True),
        behaviour=behave,
        splice_behaviour=go_on,
    )
    submit(driver, program)
    driver.run()
    check_values(driver, program)
    assert driver.staged == {}


@examples(60)
@given(ANY_PROGRAM, st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_bad_luck_changes_no_value(program: Program, luck: list[int]) -> None:
    fate = iter(luck)

    def behave(start: StartRequest) -> Outcome:
        if start.engine != "safe" and int(start.attempt.rpartition("~")[2]) < 3:
            match next(fate, 9):
                case 0:
                    return Death(0.5)
                case 1 | 2:
                    return Refusal(is_retryable=True, said="half")
        return Reply(reply_text(start.parts))

    driver = audited_driver(
        *(make_engine(name, max_requests=2) for name in ("e0", "e1", "safe")),
        config=CoreConfig(max_attempts=9),
        behaviour=behave,
    )
    submit(driver, program)
    driver.run()
    check_values(driver, program)


@examples(60)
@given(ANY_PROGRAM, st.data())
def test_values_do_not_depend_on_how_the_program_was_submitted(
    program: Program, data: st.DataObject
) -> None:
    driver = audited_driver(make_engine(), behaviour=lambda start: Reply(reply_text(start.parts)))
    driver.submit(variables=dict.fromkeys(program.externals))
    for piece in data.draw(pieces(program.nodes)):
        driver.submit(*piece, is_new=False)
        driver.run()
    for name, value in program.externals.items():
        driver.set(name, value)
    for name in program.variables:
        driver.get(name, f"w-{name}")
    driver.run()
    check_values(driver, program)


# --- objectives ----------------------------------------------------------------------------------


@st.composite
def pieces(draw: st.DrawFn, nodes: tuple[NodeSpec, ...]) -> list[list[NodeSpec]]:
    """Cut nodes that are in topological order into submits, each in any order."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(nodes) - 1)), max_size=3)))
    bounds = [0, *cuts, len(nodes)]
    return [draw(st.permutations(nodes[a:b])) for a, b in itertools.pairwise(bounds)]


def deduce(graph: SessionGraph, wanted: dict[str, Criteria]) -> dict[NodeId, Objective]:
    return deduce_objectives(graph, {var(name): criteria for name, criteria in wanted.items()})


@examples(300)
@given(programs())
def test_objectives_are_those_found_by_trying_every_path(program: Program) -> None:
    graph = make_graph(*program.nodes, variables=dict(program.externals))
    found = deduce(graph, program.wanted)
    outputs = {node.id: name_of(node.output) for node in graph.nodes.values()}
    groups: dict[str, set[str]] = {}
    for node_id, objective in found.items():
        if objective.group is not None:
            groups.setdefault(objective.group, set()).add(outputs[node_id])
    assert {
        outputs[node_id]: (
            o.objective_class,
            frozenset(groups[o.group]) if o.group is not None else frozenset(),
            o.deadline_s,
        )
        for node_id, o in found.items()
    } == expected_objectives(program)


@examples(150)
@given(programs(), st.data())
def test_objectives_do_not_depend_on_the_order_of_wishes(
    program: Program, data: st.DataObject
) -> None:
    graph = make_graph(*program.nodes, variables=dict(program.externals))
    order = data.draw(st.permutations(list(program.wanted.items())))
    assert deduce(graph, dict(order)) == deduce(graph, program.wanted)


@examples(150)
@given(programs(), st.integers(0, 8), st.data())
def test_objectives_of_what_is_left_do_not_depend_on_the_order_of_wishes(
    program: Program, num_finished: int, data: st.DataObject
) -> None:
    graph = make_graph(*program.nodes, variables=dict(program.externals))
    for node in list(graph.nodes.values())[:num_finished]:
        node.state = NodeState.FINISHED
    order = data.draw(st.permutations(list(program.wanted.items())))
    found = deduce(graph, program.wanted)
    assert deduce(graph, dict(order)) == found
    assert not any(graph.nodes[node_id].has_ended for node_id in found)


@examples(150)
@given(programs(), st.data())
def test_objectives_do_not_depend_on_how_the_graph_was_submitted(
    program: Program, data: st.DataObject
) -> None:
    at_once = queued_objectives([list(program.nodes)], program, list(program.wanted.items()))
    submits = data.draw(pieces(program.nodes))
    wishes = data.draw(st.permutations(list(program.wanted.items())))
    assert queued_objectives(submits, program, wishes) == at_once


def queued_objectives(
    submits: list[list[NodeSpec]], program: Program, wishes: list[tuple[str, Criteria]]
) -> dict[VariableId, Objective]:
    """Return the objectives after some submits and then some wishes, with no engine to run them."""
    core = Coordinator(CoreConfig())
    core.handle(make_submission(variables=dict(program.externals)), 0.0)
    for nodes in submits:
        core.handle(make_submission(*nodes, is_new=False), 0.0)
    for name, criteria in wishes:
        wanted = [make_wanted(name, criteria)]
        core.handle(make_submission(is_new=False, wanted=wanted), 0.0)
    graph = core.session(SESSION).graph
    return {
        node.output: objective
        for node in graph.nodes.values()
        if (objective := getattr(node, "objective", None)) is not None
    }


@examples(100)
@given(programs())
def test_only_what_a_latency_variable_needs_is_urgent(program: Program) -> None:
    graph = make_graph(*program.nodes, variables=dict(program.externals))
    calm = {n: c for n, c in program.wanted.items() if c.kind.value == "throughput"}
    classes = {o.objective_class for o in deduce(graph, calm).values()}
    assert classes <= {ObjectiveClass.THROUGHPUT}


@examples(60)
@given(ANY_PROGRAM)
def test_program_that_is_cancelled_at_once_leaves_nothing_running(program: Program) -> None:
    driver = audited_driver(make_engine())
    submit(driver, program)
    driver.cancel()
    assert driver.running == {}
    assert driver.coordinator.num_unfinished_calls == 0
    assert {a.state for a in driver.answers.values()} <= {
        VariableState.READY,
        VariableState.FAILED,
        VariableState.CANCELLED,
    }
    assert len(driver.answers) == len(program.variables)


@examples(150)
@given(programs(), st.data())
def test_when_all_have_left_with_cancel_nothing_goes_on(
    program: Program, data: st.DataObject
) -> None:
    driver = audited_driver(make_engine(max_requests=3))
    read = {name for node in program.nodes for name in inputs_of(node)}
    ends = [name for name in program.variables if name not in read]
    wanted = list(dict.fromkeys([*ends, *program.wanted]))
    driver.submit(
        *program.nodes,
        variables=dict(program.externals),
        wanted=[make_wanted(name, waiter=f"w-{name}") for name in wanted],
    )
    for name in data.draw(st.permutations(wanted)):
        is_lucky: bool = data.draw(st.booleans())
        if is_lucky and driver.running:
            attempt = data.draw(st.sampled_from(list(driver.running)))
            driver.send(finished(attempt, data.draw(st.sampled_from(["v", '{"a": "v"}']))))
        driver.leave(f"w-{name}", cancel=True)
    assert driver.running == {}
    assert driver.coordinator.num_unfinished_calls == 0


@pytest.mark.parametrize("seed", range(12))
def test_every_configuration_of_the_histories_can_be_drained(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.play([(0, seed, 5, 7), (18, 0, 0, 3), (19, 1, 1, 1)])
    chaos.drain()
    assert chaos.driver.coordinator.num_unfinished_calls == 0
