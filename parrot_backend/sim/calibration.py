"""Calibration files: what an engine that runs has learnt of itself, for the simulator.

JSON, one engine a file::

    {"format": "parrot-calibration", "version": 2, "model": "...", "max_model_len": ...,
     "max_requests": ..., "capacity_tokens": ..., "latency_capacity_tokens": ...,
     "block_tokens": ..., "max_step_tokens": ..., "call_overhead_s": ...,
     "server_call_s": ...,
     "step_time": {"base_s": ..., "per_prefill_token_s": ..., ...}, "speeds": [[0.0, 1.1], ...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from parrot_backend.core.call_overhead import CallOverhead
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.protocol import EngineView
from parrot_backend.sim.latency import LinearLatency
from parrot_backend.sim.spec import EngineRules, EngineSpec

_FORMAT = "parrot-calibration"
_VERSION = 2

#: Beyond any engine, and far from where numbers overflow.
_MAX_NUMBER = 1e12

#: vLLM's own, for engines that do not tell.
_BLOCK_TOKENS, _MAX_STEP_TOKENS = 16, 8192


class CalibrationError(ValueError):
    """A file is no calibration, or not one that can be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One engine.

    Attributes:
        model: What it serves.
        max_model_len: Longest prompt plus output, in tokens.
        max_requests: Requests that may run at once.
        capacity_tokens: KV tokens that running requests may hold together.
        latency_capacity_tokens: The same while latency-sensitive work runs.
        block_tokens: Tokens of one KV block.
        max_step_tokens: Tokens of one step at most.
        call_overhead_s: What a call takes beside the engine's own time.
        server_call_s: The part of it that keeps the server busy.
        step_time: How long its steps take.
        speeds: Of a recorded run: seconds from its first call on, and how many times as long as in
            the mean steps took from then on.
    """

    model: str
    max_model_len: int
    max_requests: int
    capacity_tokens: int
    latency_capacity_tokens: int
    block_tokens: int
    max_step_tokens: int
    call_overhead_s: float
    server_call_s: float
    step_time: StepTimeModel
    speeds: tuple[tuple[float, float], ...] = ()

    def spec(self, *, rules: EngineRules = "parrot") -> EngineSpec:
        """Return the simulated engine that is like this one, with these rules of its own."""
        return EngineSpec(
            latency=LinearLatency(self.step_time.in_the_mean()),
            num_blocks=max(1, self.capacity_tokens // self.block_tokens),
            block_tokens=self.block_tokens,
            max_step_tokens=self.max_step_tokens,
            call_overhead_s=self.call_overhead_s,
            server_call_s=self.server_call_s,
            max_requests=self.max_requests,
            max_model_len=self.max_model_len,
            rules=rules,
            latency_capacity_tokens=self.latency_capacity_tokens,
            model=self.model,
        )


def calibration_of_view(engine: EngineView) -> Calibration | None:
    """Return what a live engine has learnt, as its server shows it; None if nothing yet."""
    if engine.step_time is None:
        return None
    overhead = CallOverhead(engine.call_overhead_s or 0.0, engine.server_call_s or 0.0)
    return calibration_of_info(engine, overhead, StepTimeModel(**engine.step_time.model_dump()))


def calibration_of_info(
    engine: EngineInfo | EngineView,
    overhead: CallOverhead,
    step_time: StepTimeModel,
    speeds: tuple[tuple[float, float], ...] = (),
) -> Calibration:
    """Return what is known of an engine.

    Args:
        engine: What it says of itself.
        overhead: What calls take beside its time.
        step_time: How long its steps take.
        speeds: How that changed during a recorded run.
    """
    return Calibration(
        engine.models[0] if engine.models else "model",
        engine.max_model_len,
        engine.max_requests,
        engine.capacity_tokens,
        engine.latency_capacity_tokens,
        engine.block_tokens or _BLOCK_TOKENS,
        max(engine.max_step_tokens or _MAX_STEP_TOKENS, engine.max_requests),
        overhead.lone_s,
        overhead.server_s,
        step_time,
        speeds,
    )


def to_json(calibration: Calibration) -> str:
    """Return the text of a file."""
    content = {"format": _FORMAT, "version": _VERSION, **asdict(calibration)}
    return json.dumps(content, indent=2) + "\n"


def read_calibration(path: Path) -> Calibration:
    """Read a file.

    Raises:
        CalibrationError: It is not there, or it is no calibration.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def from_json(text: str) -> Calibration:
    """Return the calibration that a text holds.

    Raises:
        CalibrationError: It holds none, or its numbers make no sense.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise CalibrationError(f"no JSON: {error}") from error
    if not isinstance(raw, Mapping) or raw.get("format") != _FORMAT:
        raise CalibrationError(f"no calibration: 'format' must be {_FORMAT!r}")
    if raw.get("version") != _VERSION:
        raise CalibrationError(f"version {raw.get('version')!r} is not known, only {_VERSION}")
    step_time = raw.get("step_time")
    if not isinstance(step_time, Mapping):
        raise CalibrationError("'step_time' is missing, or no object")
    model = raw.get("model")
    if not isinstance(model, str) or not model:
        raise CalibrationError("'model' must be a name")
    return Calibration(
        model,
        _count(raw, "max_model_len"),
        _count(raw, "max_requests"),
        _count(raw, "capacity_tokens"),
        _count(raw, "latency_capacity_tokens"),
        _count(raw, "block_tokens"),
        _count(raw, "max_step_tokens"),
        _amount(raw, "call_overhead_s"),
        _amount(raw, "server_call_s"),
        _step_time(step_time),
        _speeds(raw.get("speeds")),
    )


def _speeds(raw: object) -> tuple[tuple[float, float], ...]:
    if not isinstance(raw, list):
        raise CalibrationError("'speeds' must be a list")
    found = list[tuple[float, float]]()
    for item in raw:
        is_pair = isinstance(item, list) and len(item) == 2
        pair = dict(zip(("time", "speed"), item, strict=True)) if is_pair else {}
        time_s, factor = _amount(pair, "time"), _amount(pair, "speed")
        if not factor or (found and time_s <= found[-1][0]):
            raise CalibrationError(f"'speeds' must rise in time, and be above 0: {item!r}")
        found.append((time_s, factor))
    return tuple(found)


def _step_time(raw: Mapping[str, Any]) -> StepTimeModel:
    names = [field.name for field in fields(StepTimeModel)]
    unknown = set(raw) - set(names)
    if unknown:
        raise CalibrationError(f"'step_time' has no {sorted(unknown)[0]!r}")
    values = {name: _amount(raw, name) for name in names if name != "num_samples"}
    model = StepTimeModel(num_samples=_count(raw, "num_samples", least=0), **values)
    per_step_s = model.base_s + model.per_decode_s + model.per_prefill_token_s
    if not (per_step_s > 0 and model.slowdown > 0):
        raise CalibrationError("by 'step_time', steps take no time")
    return model


def _amount(raw: Mapping[str, Any], name: str) -> float:
    value = raw.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value is None or not 0 <= value <= _MAX_NUMBER:
        raise CalibrationError(
            f"{name!r} must be a number from 0 to {_MAX_NUMBER:.0e}, not {_short(value)}"
        )
    return float(value)


def _count(raw: Mapping[str, Any], name: str, least: int = 1) -> int:
    value = raw.get(name)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not isinstance(value, int) or not least <= value <= _MAX_NUMBER:
        raise CalibrationError(
            f"{name!r} must be a whole number from {least} to {_MAX_NUMBER:.0e}, not "
            f"{_short(value)}"
        )
    return value


def _short(value: object) -> str:
    # Python writes no whole number of thousands of digits.
    return "more" if isinstance(value, int) and value > _MAX_NUMBER else repr(value)
