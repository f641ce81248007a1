"""``parrot simulate`` with engines that fail, are slow, or are not alike."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from parrot_backend.cli import app
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.calibration import Calibration, to_json
from parrot_backend.sim.spec import Fault
from parrot_backend.simulate.exits import UsageError
from parrot_backend.simulate.fault_words import faults_of
from tests.core.hypothesis_settings import examples

QUICK = [
    *("simulate", "--app", "copilot", "--jobs", "40", "--rate", "2", "--param", "arrivals=uniform"),
    *("--engine", "a100-7b", "--placement", "least_loaded"),
]
MIXED = [one for one in QUICK if one not in ("--engine", "a100-7b")]


def parrot(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "60"})


def told(*arguments: str) -> dict[str, Any]:
    result = parrot(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def calls_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "calls.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- words -------------------------------------------------------------------------------------

SLOW2, BACK = ("slow", 2.0), ("slow", 1.0)
WORDS: list[tuple[list[str], list[str], list[tuple[float, int, str, float]]]] = [
    ([], [], []),
    (["5:1"], [], [(5.0, 1, "lost", 1.0)]),
    (["5:1:2.5"], [], [(5.0, 1, "lost", 1.0), (7.5, 1, "joins", 1.0)]),
    (["9:0", "5:1"], [], [(5.0, 1, "lost", 1.0), (9.0, 0, "lost", 1.0)]),
    ([], ["2:1.5"], [(0.0, 2, "slow", 1.5)]),
    ([], ["0:2:3"], [(3.0, 0, *SLOW2)]),
    ([], ["0:2:3-4"], [(3.0, 0, *SLOW2), (4.0, 0, *BACK)]),
    ([], ["0:inf:3"], [(3.0, 0, "slow", math.inf)]),
    (
        ["5:0:2"],
        ["0:2"],
        [(0.0, 0, *SLOW2), (5.0, 0, "lost", 1.0), (7.0, 0, "joins", 1.0), (7.0, 0, *SLOW2)],
    ),
]


@pytest.mark.parametrize(("fails", "stragglers", "expected"), WORDS)
def test_what_words_mean(
    fails: list[str], stragglers: list[str], expected: list[tuple[float, int, str, float]]
) -> None:
    found = faults_of(fails, stragglers, 3)
    assert [(f.time_s, f.engine, f.kind, f.factor) for f in found] == expected


@st.composite
def spans(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Return spans of time of engines, none of which overlap on one engine."""
    found = []
    for engine in range(2):
        edges = sorted(draw(st.sets(st.integers(0, 20), max_size=6)))
        found += [(engine, edges[n], edges[n + 1]) for n in range(0, len(edges) - 1, 2)]
        if draw(st.booleans()):
            found += [(engine, edges[n], edges[n + 1]) for n in range(1, len(edges) - 1, 2)]
    return draw(st.permutations(found))


@examples(200)
@given(spans(), spans())
def test_an_engine_is_at_any_time_what_the_words_say(
    outages: list[tuple[int, int, int]], slow: list[tuple[int, int, int]]
) -> None:
    fails = [f"{begin}:{engine}:{end - begin}" for engine, begin, end in outages]
    stragglers = [f"{engine}:{begin + 2}:{begin}-{end}" for engine, begin, end in slow]
    faults = faults_of(fails, stragglers, 2)
    for probe in range(21):
        for engine in range(2):
            time_s = probe + 0.5
            down = [e == engine and begin < time_s < end for e, begin, end in outages]
            factors = [b + 2.0 for e, b, end in slow if e == engine and b < time_s < end]
            expected = None if any(down) else (*factors, 1.0)[0]
            assert _state(faults, engine, time_s) == expected


def _state(faults: tuple[Fault, ...], engine: int, time_s: float) -> float | None:
    """Return how slow an engine is after what has happened, as the simulator takes it."""
    factor: float | None = 1.0
    for fault in faults:
        if fault.engine != engine or fault.time_s > time_s:
            continue
        if fault.kind == "lost":
            factor = None
        elif fault.kind == "joins":
            factor = 1.0 if factor is None else factor
        elif factor is not None:
            factor = fault.factor
    return factor


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail", "5"], "--fail must be TIME:ENGINE[:DOWN_S], not '5'"),
        (["--fail", "1:0:1:1"], "not two or three parts"),
        (["--fail", "soon:0"], "'soon' is no number"),
        (["--fail=-1:0"], "a time is at least 0 s"),
        (["--fail", "nan:0"], "a time is at least 0 s"),
        (["--fail", "inf:0"], "a time is at least 0 s"),
        (["--fail", "5:e1"], "an engine is a whole number from 0 on, not 'e1'"),
        (["--fail", "5:-1"], "an engine is a whole number from 0 on"),
        (["--fail", "5:0:0"], "gone for longer than 0 s"),
        (["--fail", "5:2"], "no engine 2 in a setting with 2 engines, counted from 0"),
        (["--fail", "5:1", "--engines", "1,2"], "no engine 1 in a setting with 1 engine,"),
        (["--fail", "5:0:9", "--fail", "8:0"], "--fail 8:0: engine 0 has 5:0:9 at that time"),
        (["--straggler", "0"], "--straggler must be ENGINE:FACTOR[:FROM_S-TO_S]"),
        (["--straggler", "0:1"], "its factor must be above 1"),
        (["--straggler", "0:nan"], "its factor must be above 1"),
        (["--straggler", "0:1e308"], "at most 1000000"),
        (["--fail", "1e17:0:1"], "must be gone for longer"),
        (["--fail", "1:" + "9" * 5000], "an engine is a whole number"),
        (["--straggler", "0:2:9-9"], "it must begin before it ends"),
        (["--straggler", "0:2:-9"], "'' is no number"),
        (["--straggler", "5:2"], "no engine 5"),
        (["--straggler", "0:2", "--straggler", "0:3:5"], "engine 0 has 0:2 at that time"),
        (["--engines", "2xa100-7b"], "leave out --engine and --calibration"),
    ],
)
def test_what_cannot_happen_is_told_before_anything_runs(arguments: list[str], said: str) -> None:
    engines = [] if "--engines" in arguments else ["--engines", "2"]
    refused(parrot(*QUICK, *engines, *arguments), said)


@pytest.mark.parametrize(
    ("engines", "said"),
    [
        ("2xa100-7b,1", "'1' beside kinds of engines must be NUMBERxENGINE"),
        ("2xtpu", "there is no engine 'tpu'"),
        ("0xa100-7b", "there must be at least 1 a100-7b, not 0"),
        ("9999xa100-7b,2xa6000-7b", "at most 10000, not 10001"),
        ("1x/nowhere/e.json", "/nowhere/e.json cannot be read"),
        ("-2xa100-7b", "must be whole numbers like 4, 1,2,4 or 1-16, or kinds like"),
    ],
)
def test_engines_that_cannot_be_are_told(engines: str, said: str) -> None:
    refused(parrot(*MIXED, f"--engines={engines}"), said)


def refused(result: Result, said: str) -> None:
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.startswith("parrot: ")
    assert result.stderr.count("\n") == 1
    assert not isinstance(result.exception, UsageError)


# --- what comes of them ------------------------------------------------------------------------


def test_an_engine_that_fails_runs_nothing_until_it_is_back(tmp_path: Path) -> None:
    arguments = [*QUICK, "--engines", "2", "--fail", "5:1:10"]
    result = parrot(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    for text in ("at 5 s, engine 1 is lost", "at 15 s, engine 1 is back", "calls were begun again"):
        assert text in result.stdout
    calls = calls_of(tmp_path)
    on_it = [call for call in calls if call["engine"] == "1"]
    begun = sorted(float(call["placed_s"]) for call in on_it)
    assert begun
    assert not [call for call in on_it if 5.0 < float(call["finished_s"]) < 15.0]
    assert begun[0] < 5.0 or begun[0] >= 15.0
    assert all(begin < 5.0 or begin >= 15.0 for begin in begun)
    assert any(begin >= 15.0 for begin in begun)
    again = [call for call in calls if int(call["attempts"]) > 1]
    assert again
    assert all(call["engine"] == "0" or float(call["placed_s"]) >= 15.0 for call in again)
    assert told(*arguments)["rows"][0]["retried"] == len(again)
    assert told(*arguments)["rows"][0]["jobs"] == 40


def test_without_any_engine_left_jobs_fail_and_the_simulation_ends() -> None:
    found = told(*QUICK, "--engines", "1", "--fail", "5:0", "--job-p99-s", "100")
    row = found["rows"][0]
    assert row["failed"] + row["jobs"] == 40
    assert row["failed"] >= 20
    assert found["answers"][0]["engines"] is None


def test_a_straggler_costs_time_while_it_is_one() -> None:
    def mean_s(*arguments: str) -> float:
        found = told(*QUICK, "--engines", "2", *arguments)["rows"][0]["job_mean_s"]
        assert isinstance(found, float)
        return found

    never, always = mean_s(), mean_s("--straggler", "0:3")
    a_while = mean_s("--straggler", "0:3:2-8")
    assert never < a_while < always
    assert mean_s("--straggler", "0:3:100000") == never


def test_an_engine_that_hangs_is_given_up() -> None:
    document = told(*QUICK, "--engines", "2", "--straggler", "1:inf:5")
    json.dumps(document, allow_nan=False)
    row = document["rows"][0]
    assert (row["jobs"], row["failed"]) == (40, 0)
    assert row["retried"] > 0
    assert row["job_p99_s"] > 100


def test_kinds_of_engines_side_by_side(tmp_path: Path) -> None:
    step_time = StepTimeModel(0.01, 1e-5, 1e-4, 1e-8, 0.0, 64, 0.02)
    file = tmp_path / "own.json"
    file.write_text(
        to_json(Calibration("tiny", 8192, 16, 100_000, 6144, 16, 2048, 0.0, 0.0, step_time))
    )
    arguments = [*MIXED, f"--engines=2xa100-7b, 1xa6000-7b,1x{file}"]
    result = parrot(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    for text in (
        "engine 2 x a100-7b (expected, not measured): 108800 KV tokens",
        "engine 1 x a6000-7b (expected, not measured): 48000 KV tokens",
        "engine 1 x own (measured): 100000 KV tokens, 16 requests",
    ):
        assert text in result.stdout
    document = told(*arguments)
    assert document["engine"] is None
    kinds = [(kind["number"], kind["name"]) for kind in document["mixed_engines"]]
    assert kinds == [(2, "a100-7b"), (1, "a6000-7b"), (1, "own")]
    row = document["rows"][0]
    assert (row["engines"], row["jobs"], row["bound_s"]) == (4, 40, None)
    per_token = dict[str, list[float]]()
    for call in calls_of(tmp_path):
        took_s = float(call["finished_s"]) - float(call["first_token_s"])
        per_token.setdefault(call["engine"], []).append(took_s / int(call["output_tokens"]))
    means_s = {engine: sum(times) / len(times) for engine, times in per_token.items()}
    assert set(means_s) == {"0", "1", "2", "3"}
    assert means_s["2"] > 1.3 * max(means_s["0"], means_s["1"])
    assert means_s["3"] < min(means_s["0"], means_s["1"])


def test_one_kind_by_name_is_what_it_is_by_number() -> None:
    by_number = told(*QUICK, "--engines", "3")
    by_name = told(*MIXED, "--engines", "3xa100-7b")
    assert by_name == by_number


def test_a_call_that_only_the_roomier_kind_takes_runs_there(tmp_path: Path) -> None:
    trace = tmp_path / "own.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 60000, "output_length": 9}\n')
    arguments = ["simulate", "--trace", str(trace), "--placement", "paper"]
    row = told(*arguments, "--engines", "1xa6000-7b,1xa100-7b")["rows"][0]
    assert (row["jobs"], row["failed"]) == (1, 0)
    alone = parrot(*arguments, "--engine", "a6000-7b")
    assert "no job can run" in alone.stderr
