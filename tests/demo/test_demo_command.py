"""The whole command on a real vLLM engine, and what is left of it when it ends early."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
MARK = "PROCESS_OF_DEMO_TEST"
COMMAND = [sys.executable, "-c", "from parrot_backend.cli import app_main; app_main()", "demo"]


@pytest.fixture
def mark():
    """A value that all processes of one test carry in their environment."""
    return uuid.uuid4().hex


def start(tmp_path, mark, *options):
    environment = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.Popen(
        [*COMMAND, *options],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(mark):
    """Return the command lines of all living processes of a test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}" in (folder / "environ").read_text(errors="replace"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def left_after(mark, timeout_s):
    """Return what still lives after at most so long."""
    end_s = time.monotonic() + timeout_s
    while (left := processes(mark)) and time.monotonic() < end_s:
        time.sleep(0.1)
    return left


def start_and_wait_for_the_host(tmp_path, mark):
    demo = start(tmp_path, mark)
    end_s = time.monotonic() + 60
    while not any("demo.host" in line for line in processes(mark)):
        assert demo.poll() is None, demo.stderr.read()
        assert time.monotonic() < end_s
        time.sleep(0.05)
    time.sleep(1.0)
    return demo


def test_the_demo_measures_all_programs_and_leaves_files_but_no_process(tmp_path, mark):
    options = ("--repeat", "1", "--tokens", "8", "--round-trip-ms", "100", "--json")
    demo = start(tmp_path, mark, *options)
    out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, err
    assert left_after(mark, 0) == []

    programs = json.loads((tmp_path / "parrot-demo/numbers.json").read_text())["programs"]
    trips = {
        program["title"]: [run["round_trips"] for run in program["repetitions"][0].values()]
        for program in programs
    }
    assert trips == {
        "chain summary, 8 parts": [8, 1],
        "map-reduce summary, 8 parts": [9, 1],
        "snake game: code, then tests": [2, 1],
    }
    for program in programs:
        check_program(program)
        assert program["title"] in out
    for name in ("gantt.html", "chain-summary.perfetto.json", "server.log"):
        assert (tmp_path / "parrot-demo" / name).exists()


def check_program(program):
    (repetition,) = program["repetitions"]
    ordinary, parrot = repetition["call by call"], repetition["one submit"]
    for run in (ordinary, parrot):
        assert {call["completion_tokens"] for call in run["calls"]} == {8}
    names = [call["name"] for call in ordinary["calls"]]
    assert [call["name"] for call in parrot["calls"]] == names
    # Texts that are cut at other places may differ by a token; whole prompts may not.
    for one, other in zip(ordinary["calls"], parrot["calls"], strict=True):
        assert one["prompt_tokens"] == pytest.approx(other["prompt_tokens"], rel=0.02)
    assert program["bound_s"] < parrot["e2e_s"]


def test_ctrl_c_ends_everything(tmp_path, mark):
    demo = start_and_wait_for_the_host(tmp_path, mark)
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Stopped" in err
    assert left_after(mark, 20) == []


def test_a_demo_that_is_killed_leaves_nothing_either(tmp_path, mark):
    demo = start_and_wait_for_the_host(tmp_path, mark)
    demo.kill()
    demo.communicate(timeout=60)
    assert left_after(mark, 20) == []
