"""A real engine's calibration and recording, used by the simulator."""

from __future__ import annotations

import importlib.util
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from parrot_backend.cli import app
from tests.helpers.served import parrot_serve

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.e2e,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]

_NUM_PROGRAMS = 8
_PATIENCE_S = 60.0


def _program(number: int) -> dict[str, Any]:
    sampling = {"max_tokens": 24, "temperature": 0, "ignore_eos": True}
    text = f"Text {number}. " + "The quick brown fox jumps over the lazy dog. " * 8
    return {
        "app": "two-steps",
        "nodes": [
            {
                "kind": "call",
                "name": name,
                "prompt": f"{text} {read} {{{{output:{name}}}}}",
                "sampling": sampling,
            }
            for name, read in (("first", ""), ("second", "{{input:first}}"))
        ],
        "outputs": [{"variable": "second", "criteria": {"kind": "latency"}}],
    }


def _parrot(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_live_engine_is_simulated_by_what_it_learnt(tmp_path: Path) -> None:
    recording, folder = tmp_path / "run.jsonl", tmp_path / "calibration"
    attention = "--shared-attention"  # the default on CPUs
    serving = parrot_serve("--kv-cache-gib", "0.25", "--record", str(recording), attention)
    with serving as url, httpx.Client(base_url=url, timeout=_PATIENCE_S) as client:

        def submit(number: int) -> None:
            client.post("/v1/submit", json=_program(number)).raise_for_status()

        num_submits, until_s = 0, time.monotonic() + _PATIENCE_S
        with ThreadPoolExecutor(4) as pool:
            while client.get("/v1/engines").json()["engines"][0]["step_time"] is None:
                assert time.monotonic() < until_s, "the engine does not learn its times"
                numbers = range(num_submits, num_submits + _NUM_PROGRAMS)
                list(pool.map(submit, numbers))
                num_submits += _NUM_PROGRAMS
        result = _parrot("calibrate", "--url", url, "--out", folder)
        assert result.exit_code == 0, result.stderr
    (file,) = folder.iterdir()

    told = _parrot("simulate", "--app", "copilot", "--jobs", "3", "--calibration", file)
    assert told.exit_code == 0, told.stderr
    assert "(measured)" in told.stdout
    same = _parrot("simulate", "--replay", recording)
    assert same.exit_code == 0, same.output
    assert f"{2 * num_submits} attempts" in same.stdout

    trace = tmp_path / "own.jsonl"
    converted = _parrot("trace", "convert", recording, trace)
    assert converted.exit_code == 0, converted.stderr
    simulated = _parrot(
        *("simulate", "--trace", trace, "--calibration", file, "--json", "--round-trip-ms", "0")
    )
    assert simulated.exit_code == 0, simulated.stderr
    (row,) = json.loads(simulated.stdout)["rows"]
    assert (row["jobs"], row["failed"], row["calls"]) == (num_submits, 0, 2 * num_submits)
    assert row["output_tokens"] == 24 * 2 * num_submits
    assert 0 < row["tpot_mean_s"] < 1
