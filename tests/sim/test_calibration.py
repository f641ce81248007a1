from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import EngineId
from parrot_backend.core.step_time import StepTimeModel, StepWork
from parrot_backend.server.views import engines_to_views
from parrot_backend.sim.calibration import (
    Calibration,
    CalibrationError,
    calibration_of_view,
    from_json,
    read_calibration,
    to_json,
)

MODEL = StepTimeModel(0.01, 1e-4, 1e-5, 1e-7, 1e-9, 128, 0.05)


def make_calibration(**tells: Any) -> Calibration:
    """Return the calibration of an engine, as its server shows it."""
    own = {
        "block_tokens": 32,
        "max_step_tokens": 2048,
        "call_overhead_s": 0.002,
        "server_call_s": 0.001,
    }
    info = EngineInfo(EngineId("e"), ("tiny",), 4096, 65_536, 6144, 64)
    state = EngineState(info, step_time=MODEL)
    (view,) = engines_to_views([state], lambda _: None, {}).engines
    found = calibration_of_view(view.model_copy(update={**own, **tells}))
    assert found is not None
    return found


def test_a_file_gives_back_what_an_engine_learnt(tmp_path: Path) -> None:
    calibration = make_calibration()
    path = tmp_path / "engine.json"
    path.write_text(to_json(calibration))
    assert read_calibration(path) == calibration


def test_a_file_gives_back_how_fast_an_engine_was(tmp_path: Path) -> None:
    calibration = replace(make_calibration(), speeds=((0.0, 0.9), (6.0, 1.2)))
    assert from_json(to_json(calibration)) == calibration


def test_the_simulated_engine_is_like_it() -> None:
    spec = make_calibration().spec()
    assert (spec.num_blocks, spec.block_tokens) == (2048, 32)
    assert spec.max_step_tokens == 2048
    assert (spec.call_overhead_s, spec.server_call_s) == (0.002, 0.001)
    assert (spec.max_requests, spec.max_model_len, spec.model) == (64, 4096, "tiny")
    work = StepWork.prefill(100, 0)
    assert spec.latency.step_s(work) == MODEL.predict_s(work)


def test_an_engine_that_does_not_tell_is_taken_to_be_as_vllm_is() -> None:
    untold = dict.fromkeys(("block_tokens", "max_step_tokens", "call_overhead_s", "server_call_s"))
    spec = make_calibration(**untold).spec()
    assert (spec.block_tokens, spec.max_step_tokens) == (16, 8192)
    assert (spec.call_overhead_s, spec.server_call_s) == (0.0, 0.0)


def test_an_engine_that_has_learnt_nothing_has_no_calibration() -> None:
    (view,) = engines_to_views(
        [EngineState(EngineInfo(EngineId("e"), (), 9, 9, 9, 9))], lambda _: None, {}
    ).engines
    assert calibration_of_view(view) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "no calibration"),
        ({"version": 1}, "version 1"),
        ({"model": ""}, "'model'"),
        ({"capacity_tokens": 0}, "'capacity_tokens'"),
        ({"max_requests": True}, "'max_requests'"),
        ({"block_tokens": 0}, "'block_tokens'"),
        ({"max_step_tokens": None}, "'max_step_tokens'"),
        ({"call_overhead_s": -1.0}, "'call_overhead_s'"),
        ({"server_call_s": "0"}, "'server_call_s'"),
        ({"speeds": None}, "'speeds'"),
        ({"speeds": [[0.0]]}, "'time'"),
        ({"speeds": [[0.0, 0.0]]}, "'speeds'"),
        ({"speeds": [[6.0, 1.0], [6.0, 1.1]]}, "'speeds'"),
        ({"max_model_len": 1.5}, "'max_model_len'"),
        ({"step_time": None}, "'step_time'"),
        ({"step_time": {"base_s": -1.0}}, "'base_s'"),
        ({"step_time": {"base_s": float("nan")}}, "'base_s'"),
        ({"step_time": {"speed": 1.0}}, "'speed'"),
        ({"step_time": {"slowdown": 0.0}}, "no time"),
        ({"capacity_tokens": 10**400}, "'capacity_tokens'"),
        ({"call_overhead_s": 10**400}, "'call_overhead_s'"),
        ({"call_overhead_s": float("inf")}, "'call_overhead_s'"),
        ({"step_time": {"base_s": 0, "per_decode_s": 0, "per_prefill_token_s": 0}}, "no time"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(change: dict[str, Any], message: str) -> None:
    raw = json.loads(to_json(make_calibration()))
    if isinstance(change.get("step_time"), dict):
        change = {"step_time": {**raw["step_time"], **change["step_time"]}}
    with pytest.raises(CalibrationError, match=message):
        from_json(json.dumps({**raw, **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(CalibrationError):
        from_json(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"missing\.json"):
        read_calibration(tmp_path / "missing.json")
