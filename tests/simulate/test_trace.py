"""``parrot trace``, and recordings of servers: replayed, and turned into traces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from parrot_backend.cli import app
from parrot_backend.core.commands import Command
from parrot_backend.core.config import CoreConfig, OptimiserConfig
from parrot_backend.core.events import CallSpec, Event
from parrot_backend.core.ids import SessionId
from parrot_backend.core.prompt import Output, Text
from parrot_backend.core.recording import header_of, line_of
from parrot_backend.core.sampling import Sampling
from parrot_backend.sim.json_lines import ReadReport
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.spec import ClientSpec, Delay
from parrot_backend.sim.traces import read_arrivals, read_programs
from parrot_backend.sim.workloads.registry import make_workload
from tests.helpers.builders import make_engine, var
from tests.helpers.core_driver import CoreDriver
from tests.sim.constant_engine import make_spec
from tests.sim.programs import CONFIG, Records, make_chain, run


def parrot(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def exported(path: Path, *more: str) -> Result:
    arguments = ["--app", "copilot", "--jobs", "6", "--rate", "3", "--seed", "2", *more]
    return parrot("trace", "export", path, *arguments)


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_what_is_exported_is_the_workload(tmp_path: Path, name: str):
    path = tmp_path / name
    result = exported(path, "--param", "output_tokens=40")
    assert (result.exit_code, result.stdout) == (0, f"6 jobs in {path}\n")
    known = make_workload("copilot", 2, {"jobs": 6, "rate_per_s": 3.0, "output_tokens": 40})
    assert list(read_programs(path, ReadReport())) == list(known)
    told = parrot("trace", "info", path)
    assert told.exit_code == 0
    assert "6 lines: 6 read, 0 bad" in told.stdout
    assert "6 calls" in told.stdout
    assert "240 output tokens (40 a call)" in told.stdout


def test_an_old_file_is_left_alone(tmp_path: Path):
    path = tmp_path / "own.jsonl"
    path.write_text("precious")
    result = exported(path)
    assert result.exit_code == 2
    assert "own.jsonl: File exists" in result.stderr
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--app", "nothing"], "no workload 'nothing'"),
        (["--param", "a=b"], "a"),
        (["--rate", "0"], "rate must be above zero"),
        (["--jobs", "0"], "jobs must be at least 1"),
    ],
)
def test_what_cannot_be_exported_makes_no_file(tmp_path: Path, more: list[str], said: str):
    path = tmp_path / "own.jsonl"
    result = exported(path, *more)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not path.exists()


def test_bad_lines_are_told_with_their_numbers(tmp_path: Path):
    path = tmp_path / "other.jsonl"
    line = '{"timestamp": %d, "input_length": 600, "output_length": 10, "hash_ids": [%d, 9%d]}\n'
    path.write_text(line % (0, 1, 1) + "oops\n" + line % (3000, 1, 2) + '{"timestamp": 1}\n')
    result = parrot("trace", "info", path)
    assert result.exit_code == 0
    for said in (
        "4 lines: 2 read, 2 bad",
        "line 2: no JSON",
        "line 4: input_length must be",
        "2 jobs from 0 s to 3 s: 0.333 jobs/s; 2 calls",
        "1200 prompt tokens (600 a call), 20 output tokens (10 a call)",
        "of job 0, 600 tokens of prompt and 10 of output",
    ):
        assert said in result.stdout
    path.write_text("oops\n")
    assert parrot("trace", "info", path).exit_code == 1
    missing = parrot("trace", "info", tmp_path / "none")
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)


ARRIVALS = [Arrival(0.5 * number, make_chain(3)) for number in range(4)]


def record(path: Path, arrivals: Sequence[Arrival], num_engines: int) -> Records:
    """Record a server that runs some programs."""
    lines = [header_of(CONFIG)]

    def observe(event: Event, now_s: float, commands: Sequence[Command]) -> None:
        lines.append(line_of(event, now_s, commands))

    client = ClientSpec("graph", Delay(0.0, 0.0))
    records, _ = run(arrivals, client, [make_spec(max_requests=2)] * num_engines, observer=observe)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return records


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a server that runs four chains."""
    path = tmp_path_factory.mktemp("recording") / "run.jsonl"
    record(path, ARRIVALS, 2)
    return path


def test_a_replay_decides_the_same(recording: Path):
    result = parrot("simulate", "--replay", recording)
    assert result.exit_code == 0, result.stderr
    assert "12 attempts, placement cost" in result.stdout
    assert result.stdout.endswith("the same decisions\n")


def test_a_replay_that_decides_otherwise_fails_and_says_where(recording: Path, tmp_path: Path):
    lines = recording.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"starts"' in line)
    changed = json.loads(lines[number])
    changed["starts"][0][1] = "elsewhere"
    forged = tmp_path / "forged.jsonl"
    forged.write_text("\n".join([*lines[:number], json.dumps(changed), *lines[number + 1 :], ""]))
    result = parrot("simulate", "--replay", forged)
    assert result.exit_code == 1
    assert "other decisions at 1 events:" in result.stdout
    assert "elsewhere when it was recorded" in result.stdout


def test_a_recording_becomes_a_trace_without_its_texts(recording: Path, tmp_path: Path):
    path = tmp_path / "own.jsonl"
    result = parrot("trace", "convert", recording, path)
    assert (result.exit_code, result.stdout) == (0, f"4 jobs in {path}\n")
    jobs = list(read_arrivals(path, ReadReport()))
    assert [job.time_s for job in jobs] == pytest.approx([one.time_s for one in ARRIVALS])
    for job, known in zip(jobs, ARRIVALS, strict=True):
        found, calls = job.program.calls, known.program.calls
        assert [(one.name, one.output_tokens) for one in found] == [
            (one.name, one.output_tokens) for one in calls
        ]
        assert [one.reads for one in found] == [one.reads for one in calls]
        assert [name for name, _ in job.program.wanted] == ["c2"]
    told = parrot("simulate", "--trace", path, "--engines", "2", "--placement", "paper")
    assert told.exit_code == 0, told.stderr
    assert "own.jsonl, rate of its own: 4 jobs, 12 calls" in told.stdout


def test_a_trace_has_the_tenants_of_its_recording_and_is_as_fair(tmp_path: Path):
    path = tmp_path / "own.jsonl"
    many = [Arrival(0.0, replace(make_chain(2), tenant="many")) for _ in range(20)]
    one = Arrival(0.5, replace(make_chain(2), tenant="one"))
    live = record(tmp_path / "run.jsonl", [*many, one], 1)
    converted = parrot("trace", "convert", tmp_path / "run.jsonl", path)
    assert converted.exit_code == 0, converted.stderr

    jobs = list(read_arrivals(path, ReadReport()))
    client, engines = ClientSpec("graph", Delay(0.0, 0.0)), [make_spec(max_requests=2)]
    again, _ = run(jobs, client, engines)
    alike = [replace(job, program=replace(job.program, tenant="default")) for job in jobs]
    unfair, _ = run(alike, client, engines)

    assert [job.program.tenant for job in jobs] == ["many"] * 20 + ["one"]
    places = [[job.job for job in records.jobs].index(20) for records in (live, again, unfair)]
    assert places[0] == places[1] < 10
    assert places[2] == 20
    told = parrot("trace", "info", path)
    assert "21 jobs of 2 tenants from 0 s to 0.5 s" in told.stdout


@pytest.mark.parametrize("command", ["replay", "convert"])
def test_what_is_no_recording_is_named(recording: Path, tmp_path: Path, command: str):
    bad = tmp_path / "bad.jsonl"
    lines = recording.read_text().splitlines(keepends=True)
    arguments: list[str | Path] = ["simulate", "--replay", bad]
    if command == "convert":
        arguments = ["trace", "convert", bad, tmp_path / "out.jsonl"]
    for content, said in (
        ("".join([*lines[:3], "[]\n", *lines[3:]]), "bad.jsonl: line 4: this is not a line"),
        ("nothing\n", "bad.jsonl: line 1"),
        ('{"format": 99, "config": {}}\n', "line 1: the recording has the format 99"),
        ("", "bad.jsonl: line 1"),
    ):
        bad.write_text(content)
        result = parrot(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_recording_without_a_finished_call_gives_no_trace(recording: Path, tmp_path: Path):
    lines = recording.read_text().splitlines(keepends=True)
    short = tmp_path / "short.jsonl"
    first = next(n for n, line in enumerate(lines) if '"GraphSubmitted"' in line)
    short.write_text("".join(lines[: first + 1]))
    result = parrot("trace", "convert", short, tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "1 sessions without a finished call left out" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_calls_that_got_the_result_of_an_equal_one_are_in_the_trace(tmp_path: Path):
    core = CoreConfig(optimiser=OptimiserConfig(result_cache_bytes=2**20))
    driver = CoreDriver(make_engine(), config=core)
    greedy = Sampling(max_tokens=8, temperature=0.0)
    for number, name in enumerate(("runs", "merged", "cached")):
        output = Output(var("v", SessionId(name)), greedy)
        call = CallSpec("c", (Text("the same for all"), output))
        driver.submit(call, session=SessionId(name), quiet=True, close=True)
        if number == 1:
            driver.finish("v", session=SessionId("runs"))
    ways = [ending.how.value for ending in driver.coordinator.endings]
    path = tmp_path / "run.jsonl"
    lines = [header_of(core), *(line_of(*step) for step in driver.history)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    converted = parrot("trace", "convert", path, tmp_path / "own.jsonl")

    assert ways == ["cached"]
    assert driver.coordinator.optimiser.num_merged == 1
    assert converted.stdout.startswith("3 jobs in "), converted.stderr
    jobs = list(read_arrivals(tmp_path / "own.jsonl", ReadReport()))
    calls = [call for job in jobs for call in job.program.calls]
    assert [call.name for call in calls] == ["v", "v", "v"]
    assert len({call.output_tokens for call in calls}) == 1
