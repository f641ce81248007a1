"""``parrot simulate`` as people call it."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from parrot_backend.cli import app
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.calibration import Calibration, to_json
from parrot_backend.sim.study import Study

QUICK = ["--app", "copilot", "--jobs", "12", "--placement", "least_loaded"]


def parrot(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "60"})


def simulated(*arguments: str) -> Result:
    result = parrot("simulate", *QUICK, *arguments)
    assert result.exit_code == 0, result.stderr
    return result


def table_of(result: Result) -> list[list[str]]:
    lines = result.stdout.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("rate "))
    last = next(n for n, line in enumerate(lines) if line.startswith("mean to bound"))
    return [line.split() for line in lines[first:last]]


def test_the_table_has_a_line_for_each_setting_whatever_the_terminal():
    result = simulated("--rate", "2,4", "--engines", "1,2")
    heads, *rows = table_of(result)
    assert heads[:5] == ["rate", "engines", "jobs", "failed", "mean"]
    assert [row[:4] for row in rows] == [
        [rate, number, "12", "0"] for rate in ("2/s", "4/s") for number in ("1", "2")
    ]
    for row in rows:
        mean, p50, p90, p99, bound = map(float, row[4:9])
        assert bound <= mean <= p99
        assert p50 <= p90 <= p99
    assert "engine h200-llama3-8b (expected, not measured)" in result.stdout
    assert "placement least_loaded" in result.stdout


def test_json_tells_the_same_and_says_what_is_enough():
    arguments = ("--rate", "2", "--engines", "1-4", "--job-p99-s", "1000", "--json")
    told = json.loads(simulated(*arguments).stdout)
    assert (told["format"], told["workload"], told["is_complete"]) == (
        "parrot-simulation",
        "copilot",
        True,
    )
    assert told["answers"] == [
        {"rate_per_s": 2.0, "engines": 1, "text": "2 jobs/s: 1 engine is enough"}
    ]
    assert [row["engines"] for row in told["rows"]] == [1, 2, 4]
    assert told == json.loads(simulated(*arguments).stdout)
    other = json.loads(simulated(*arguments, "--seed", "8").stdout)
    assert other["rows"] != told["rows"]


@pytest.mark.parametrize(("duration_s", "is_steady"), [("1", False), ("60", True)])
def test_a_load_that_is_not_steady_is_told(duration_s: str, is_steady: bool):
    arguments = ["--app", "copilot", "--param", "arrivals=uniform", "--param", "output_tokens=500"]
    result = parrot("simulate", *arguments, "--rate", "2", "--duration-s", duration_s)
    assert ("Note: 2 jobs/s: jobs begin for 1 s and take up to" in result.stdout) != is_steady
    assert ("no steady load" in result.stdout) != is_steady


def test_what_is_not_enough_is_told():
    result = simulated("--rate", "2", "--engines", "1-2", "--tpot-ms", "0.001")
    assert "2 jobs/s: not enough with 2 engines (P99 per token" in result.stdout


def test_a_client_that_sends_single_calls_takes_longer():
    def mean_s(client: str) -> float:
        arguments = ["--app", "chain_summary", "--jobs", "2", "--rate", "0.01", "--json"]
        result = parrot("simulate", *arguments, "--client", client, "--round-trip-ms", "500")
        row = json.loads(result.stdout)["rows"][0]
        assert isinstance(row["job_mean_s"], float)
        return row["job_mean_s"]

    assert mean_s("calls") > mean_s("graph") + 10


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_records_results_and_a_plot_are_written(tmp_path: Path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "folder"
    result = simulated("--rate", "2,4", "--engines", "1,2", "--tpot-ms", "50", "--out", str(out))
    assert "capacity.svg" in result.stderr
    jobs, calls = rows_of(out / "jobs.csv"), rows_of(out / "calls.csv")
    assert len(jobs) == len(calls) == 4 * 12
    assert {(one["rate_per_s"], one["engines"]) for one in jobs} == {
        (rate, number) for rate in ("2.0", "4.0") for number in ("1", "2")
    }
    summed = rows_of(out / "results.csv")
    for row in summed:
        own = [one for one in jobs if one["engines"] == row["engines"]]
        own = [one for one in own if one["rate_per_s"] == row["rate_per_s"]]
        took = [float(one["finished_s"]) - float(one["arrived_s"]) for one in own]
        assert float(row["job_mean_s"]) == pytest.approx(sum(took) / len(took))
    assert json.loads((out / "results.json").read_text())["rows"][3]["jobs"] == 12
    picture = (out / "capacity.svg").read_text()
    for text in ("P99 of job times (s)", "copilot on h200-llama3-8b", "2 engines", "target"):
        assert text in picture
    again = tmp_path / "again"
    simulated("--rate", "2,4", "--engines", "1,2", "--tpot-ms", "50", "--out", str(again))
    for name in ("capacity.svg", "results.csv", "jobs.csv", "calls.csv", "results.json"):
        assert (out / name).read_bytes() == (again / name).read_bytes(), name


def test_without_matplotlib_all_but_the_plot_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = simulated("--rate", "2", "--out", str(tmp_path))
    assert "no plot: matplotlib is not installed" in result.stderr
    assert len(table_of(result)) == 2
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "results.csv", "jobs.csv", "calls.csv"}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
):
    simulate, num_ended = Study.simulate, 0

    def until_ctrl_c(self: Study, *arguments: Any) -> Any:
        point, survey, files, _ = arguments

        def ended() -> None:
            nonlocal num_ended
            num_ended += 1
            if num_ended == 17:
                raise KeyboardInterrupt

        return simulate(self, point, survey, files, ended)

    monkeypatch.setattr(Study, "simulate", until_ctrl_c)
    more = ["--rate", "2", "--engines", "1,2,3", "--tpot-ms", "1000", "--out", str(tmp_path)]
    result = parrot("simulate", *QUICK, *more, *(["--json"] if as_json else []))
    assert result.exit_code == 130
    assert "Interrupted: these are the results until then." in result.stderr
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["is_complete"] is False
    whole, partial = told["rows"]
    assert (whole["reason"], whole["jobs"]) == ("done", 12)
    assert (partial["reason"], partial["jobs"]) == ("interrupted", 5)
    assert len(rows_of(tmp_path / "jobs.csv")) >= 17
    # The one that was simulated to its end is the smallest; nothing is claimed of the other.
    assert [answer["engines"] for answer in told["answers"]] == [1]
    if not as_json:
        assert "(partial)" in result.stdout


def test_an_interrupt_before_the_first_result_says_so(monkeypatch: pytest.MonkeyPatch):
    def survey(self: Study, rate: float | None) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "survey", survey)
    result = parrot("simulate", *QUICK)
    assert (result.exit_code, result.stderr) == (130, "parrot: interrupted\n")


_LENGTHS = '{"timestamp": %d, "input_length": %d, "output_length": 9}\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one of --app, --trace"),
        (["--app", "nothing"], "there is no workload 'nothing'"),
        (["--app", "nothing"], "--list shows them"),
        (["--app", "copilot", "--trace", "x"], "give one of --app, --trace"),
        (["--app", "copilot", "--param", "colour=red"], "colour"),
        (["--app", "copilot", "--param", "colour"], "name=value, not 'colour'"),
        (["--app", "copilot", "--param", "output_tokens=no"], "must be a whole number"),
        ([*QUICK, "--param", "cv=1", "--param", "cv=2"], "cv is given twice"),
        ([*QUICK, "--engine", "tpu"], "there is no engine 'tpu'"),
        ([*QUICK, "--engine", "a100-7b", "--calibration", "x"], "not both"),
        ([*QUICK, "--rate", "0"], "rate must be above zero, not 0"),
        ([*QUICK, "--rate", "1,-2"], "rate must be above zero, not -2"),
        ([*QUICK, "--rate", "fast"], "--rate must be numbers"),
        ([*QUICK, "--rate", "inf"], "rate must be above zero"),
        ([*QUICK, "--engines", "0"], "at least 1 engine, not 0"),
        ([*QUICK, "--engines", "-1"], "at least 1 engine, not -1"),
        ([*QUICK, "--engines", "two"], "--engines must be whole numbers"),
        ([*QUICK, "--engines", "4-2"], "nothing from 4 to 2"),
        ([*QUICK, "--engines", "1000000"], "at most 10000"),
        ([*QUICK, "--kv-tokens", "3"], "num_blocks of an engine must be at least 1"),
        ([*QUICK, "--kv-tokens", "512"], "no job can run: call"),
        ([*QUICK, "--placement", "magic"], "--placement must be one of paper"),
        ([*QUICK, "--ordering", "magic"], "--ordering must be one of"),
        ([*QUICK, "--client", "magic"], "--client must be one of graph, calls"),
        ([*QUICK, "--vllm-scheduler", "magic"], "--vllm-scheduler must be one of"),
        ([*QUICK, "--round-trip-ms", "-1"], "--round-trip-ms must be at least 0"),
        ([*QUICK, "--round-trip-ms", "nan"], "--round-trip-ms must be at least 0"),
        ([*QUICK, "--tpot-ms", "0"], "time per token must be above zero"),
        ([*QUICK, "--jobs", "0"], "jobs must be at least 1"),
        ([*QUICK, "--duration-s", "0"], "duration must be above zero"),
        (["--trace", "/nowhere/t.jsonl"], "/nowhere/t.jsonl: No such file"),
        (["--replay", "/nowhere/r.jsonl"], "/nowhere/r.jsonl: No such file"),
        (["--replay", "x", "--app", "copilot"], "give one of"),
        ([*QUICK, "--calibration", "/nowhere/c.json"], "/nowhere/c.json cannot be read"),
        ([*QUICK, "--out", "/dev/null/folder"], "/dev/null"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments: list[str], said: str):
    result = parrot("simulate", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.startswith("parrot: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == "" or "--out" in arguments


def test_lines_of_a_trace_that_cannot_be_read_are_told(tmp_path: Path):
    trace = tmp_path / "own.jsonl"
    trace.write_text(_LENGTHS % (0, 50) + "[]\n" + _LENGTHS % (500, 2_000_000) + "{\n")
    result = parrot("simulate", "--trace", str(trace), "--rate", "3")
    assert result.exit_code == 0
    assert "4 lines: 2 read, 2 bad" in result.stderr
    assert "line 2: no JSON object" in result.stderr
    assert "line 4: no JSON" in result.stderr
    assert "1 of 2 jobs cannot run and will fail" in result.stderr
    assert "2000000 tokens of prompt and 9 of output" in result.stderr
    assert table_of(result)[1][2:4] == ["1", "1"]
    trace.write_text("nothing\n")
    result = parrot("simulate", "--trace", str(trace))
    assert result.exit_code == 2
    assert "own.jsonl has no jobs; 1 lines: 0 read, 1 bad" in result.stderr


def test_engines_are_as_fast_as_they_were_recorded(tmp_path: Path):
    step_time = StepTimeModel(0.01, 1e-5, 1e-4, 1e-8, 0.0, 64, 0.02)
    own = Calibration("tiny", 8192, 16, 100_000, 6144, 16, 8192, 0.0, 0.0, step_time)
    path = tmp_path / "engine.json"
    trace = tmp_path / "own.jsonl"
    trace.write_text(_LENGTHS % (0, 50) + _LENGTHS % (60_000, 50))
    given = ("--trace", str(trace), "--calibration", str(path), "--round-trip-ms", "0")
    path.write_text(to_json(replace(own, speeds=((0.0, 1.0), (30.0, 3.0)))))
    result = parrot("simulate", *given, "--as-recorded", "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    with (tmp_path / "jobs.csv").open(newline="") as file:
        times = [float(job["finished_s"]) - float(job["arrived_s"]) for job in csv.DictReader(file)]
    assert times[1] / times[0] == pytest.approx(3.0)
    # One that was lost comes back as fast as it was then, and not as in the mean.
    result = parrot("simulate", *given, "--as-recorded", "--fail", "40:0:5", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["rows"][0]["job_p99_s"] == pytest.approx(times[1])
    result = parrot("simulate", *given, "--as-recorded", "--rate", "2")
    assert (result.exit_code, "no other --rate" in result.stderr) == (2, True)
    path.write_text(to_json(own))
    result = parrot("simulate", *given, "--as-recorded")
    assert (result.exit_code, "parrot calibrate --recording" in result.stderr) == (2, True)


def test_a_calibration_is_simulated_or_says_what_is_wrong(tmp_path: Path):
    step_time = StepTimeModel(0.01, 1e-5, 1e-4, 1e-8, 0.0, 64, 0.02)
    text = to_json(Calibration("tiny", 8192, 16, 100_000, 6144, 16, 2048, 0.0, 0.0, step_time))
    path = tmp_path / "engine.json"
    path.write_text(text)
    result = simulated("--rate", "1", "--calibration", str(path))
    assert "engine engine (measured): 100000 KV tokens, 16 requests" in result.stdout
    path.write_text(text.replace('"version": 2', '"version": 7'))
    result = parrot("simulate", *QUICK, "--calibration", str(path))
    assert result.exit_code == 2
    assert "engine.json: version 7 is not known, only 2" in result.stderr


def test_the_list_names_applications_and_engines():
    result = parrot("simulate", "--list")
    assert result.exit_code == 0
    for text in ("chain_summary", "chunk_size=1024", "mooncake", "h200-llama3-8b: not measured"):
        assert text in result.stdout
    assert "rtx4090-llama31-8b: measured" in result.stdout
