"""The simulated shell beside the live one: the same commands, and the same decisions again."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given

from parrot_backend.core.commands import Command
from parrot_backend.core.config import CoreConfig, CostConfig, SchedulerConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.event_codec import CodecError
from parrot_backend.core.events import Event
from parrot_backend.core.recording import header_of, line_of, read_header
from parrot_backend.core.scheduling.baseline_config import BaselineConfig
from parrot_backend.server.runtime import Runtime
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.recording import RecordingError, read_recording, replay
from parrot_backend.sim.shell import SimShell
from parrot_backend.sim.spec import ClientSpec, Delay, Fault
from tests.core.hypothesis_settings import examples
from tests.helpers.compiled import needs_python
from tests.sim.constant_engine import make_spec
from tests.sim.programs import CONFIG, make_chain, run
from tests.sim.random_programs import arrivals, faults

Steps = list[tuple[Event, float, list[Command]]]


def _commands_handled_by(shell: type) -> set[str]:
    tree = ast.parse(inspect.getsource(inspect.getmodule(shell) or shell))
    return {
        node.cls.id
        for node in ast.walk(tree)
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name)
    }


@pytest.mark.parametrize("shell", [Runtime, SimShell])
def test_both_shells_carry_out_every_command(shell: type) -> None:
    needs_python("its functions have no source")
    assert _commands_handled_by(shell) == {command.__name__ for command in get_args(Command)}


def _recorded(arriving: list[Arrival], happening: list[Fault], kind: Any) -> Steps:
    steps: Steps = []

    def observe(event: Event, now_s: float, commands: Sequence[Command]) -> None:
        steps.append((event, now_s, list(commands)))

    spec = ClientSpec(kind, Delay(0.1, 0.2))
    run(arriving, spec, [make_spec()] * 2, faults=happening, observer=observe)
    return steps


@examples(30, shrinks=False)
@given(arrivals(), faults(2))
def test_the_events_of_a_run_give_the_same_commands_again(
    arriving: list[Arrival], happening: list[Fault]
) -> None:
    for kind in ("graph", "calls"):
        core = Coordinator(CONFIG)
        for event, now_s, commands in _recorded(arriving, happening, kind):
            assert core.handle(event, now_s) == commands


def _lines(steps: Steps) -> list[str]:
    records = [header_of(CONFIG), *(line_of(*step) for step in steps)]
    return [json.dumps(record) + "\n" for record in records]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    needs_python("its records do not say of what types their fields are")
    arriving = [Arrival(0.02 * number, make_chain(3)) for number in range(20)]
    return _lines(_recorded(arriving, [Fault(0.7, 0, "lost")], "graph"))


def test_a_recording_that_was_written_and_read_gives_the_same_decisions(lines: list[str]) -> None:
    config, steps = read_recording(lines)
    assert config == CONFIG
    result = replay(config, steps)
    assert result.num_events == len(lines) - 1
    assert result.num_starts > 60  # some were tried again
    assert (result.num_different, result.different) == (0, ())


@pytest.mark.parametrize("weights", [{}, {"ann": 2.0, "is": 0.5, "": 1.0}])
def test_any_settings_can_be_recorded(weights: dict[str, float]) -> None:
    needs_python("its records do not say of what types their fields are")
    scheduler = SchedulerConfig(
        placement="cost",
        tenant_weights=weights,
        cost=CostConfig(latency_tpot_s=None, max_together=3),
        baselines=BaselineConfig(balance_rel=2.0),
    )
    config = CoreConfig(scheduler=scheduler, tokens_per_char=1.0)
    assert read_header(json.loads(json.dumps(header_of(config)))) == config


def test_settings_that_are_no_mapping_are_rejected() -> None:
    needs_python("its records do not say of what types their fields are")
    header = header_of(CONFIG)
    for weights, said in (([], "expected an object"), ({"ann": "much"}, r"\['ann'\]: expected")):
        header["config"]["scheduler"]["tenant_weights"] = weights
        with pytest.raises(CodecError, match=said):
            read_header(header)


def test_a_decision_that_is_another_now_is_told(lines: list[str]) -> None:
    number = next(n for n, line in enumerate(lines) if '"starts"' in line)
    line = json.loads(lines[number])
    line["starts"][0][1] = "elsewhere"
    forged = [*lines[:number], json.dumps(line) + "\n", *lines[number + 1 :]]
    result = replay(*read_recording(forged))
    assert result.num_different == 1
    assert "elsewhere when it was recorded" in result.different[0]


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (1, "not json\n", "line 1"),
        (1, '{"format": 99, "config": {}}\n', "line 1.*format 99"),
        (3, "[]\n", "line 3.*not a line"),
        (3, '{"now_s": 1.0, "event": {"is": "Nonsense"}}\n', "line 3.*none of what"),
        (3, '{"now_s": "soon", "event": {"is": "NoEngineTimer"}}\n', "line 3"),
    ],
)
def test_a_broken_line_is_named(lines: list[str], number: int, line: str, said: str) -> None:
    def read() -> None:
        broken = [*lines[: number - 1], line, *lines[number:]]
        list(read_recording(broken)[1])

    with pytest.raises(RecordingError, match=said):
        read()


def test_a_recording_that_was_cut_off_is_read_up_to_there(lines: list[str]) -> None:
    cut = [*lines[:50], lines[50][:30]]
    assert replay(*read_recording(cut)).num_events == 49


def test_events_that_do_not_follow_each_other_are_no_recording(lines: list[str]) -> None:
    twice = [*lines[:2], lines[1], *lines[2:]]  # an engine joins twice
    with pytest.raises(RecordingError, match="event 2 was rejected"):
        replay(*read_recording(twice))
