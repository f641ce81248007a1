"""Engines that can be simulated by name, or as a calibration file tells, and changes to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from parrot_backend.sim.calibration import read_calibration
from parrot_backend.sim.engine_checks import check
from parrot_backend.sim.latency_models import PUBLISHED_ENGINES, PublishedEngine
from parrot_backend.sim.spec import EngineRules, EngineSpec

_BLOCK_TOKENS = 16


class EngineChoiceError(ValueError):
    """There is no such engine, or it cannot be as it was asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """One kind of engine, and what is known of its numbers.

    Attributes:
        name: For tables.
        spec: What is simulated.
        is_measured: Its step times were measured; else they are expected.
        source: Where they come from.
        speeds: How fast it was in the run that it was measured in (:class:`.Calibration`).
    """

    name: str
    spec: EngineSpec
    is_measured: bool
    source: str
    speeds: tuple[tuple[float, float], ...] = ()


def published(name: str) -> EngineChoice:
    """Return a published engine.

    Raises:
        EngineChoiceError: There is none of this name.
    """
    engine = PUBLISHED_ENGINES.get(name)
    if engine is None:
        known = ", ".join(PUBLISHED_ENGINES)
        raise EngineChoiceError(f"there is no engine {name!r}; there are {known}")
    return _choice(engine)


def calibrated(path: Path) -> EngineChoice:
    """Return the engine that a calibration file tells of.

    Raises:
        CalibrationError: The file cannot be used.
    """
    calibration = read_calibration(path)
    step_time = calibration.step_time
    source = (
        f"{path}: measured while it served {calibration.model}, {step_time.num_samples} steps, "
        f"recent error of a step {step_time.error:.1%}"
    )
    return EngineChoice(path.stem, calibration.spec(), True, source, calibration.speeds)


def all_published() -> list[EngineChoice]:
    """Return all published engines."""
    return [_choice(engine) for engine in PUBLISHED_ENGINES.values()]


def changed(
    choice: EngineChoice,
    *,
    kv_tokens: int | None = None,
    latency_capacity_tokens: int | None = None,
    rules: EngineRules = "parrot",
) -> EngineChoice:
    """Return an engine with other settings than its own; None leaves a setting alone.

    Args:
        choice: The engine.
        kv_tokens: KV tokens that its memory holds.
        latency_capacity_tokens: Tokens that run together while latency-sensitive work runs.
        rules: Its own scheduler.

    Raises:
        EngineChoiceError: The numbers do not go together.
    """
    spec = replace(choice.spec, rules=rules)
    if kv_tokens is not None:
        spec = replace(spec, num_blocks=kv_tokens // spec.block_tokens)
    if latency_capacity_tokens is not None:
        if latency_capacity_tokens < 1:
            raise EngineChoiceError(
                f"the latency capacity must be at least 1 token, not {latency_capacity_tokens}"
            )
        spec = replace(spec, latency_capacity_tokens=latency_capacity_tokens)
    try:
        check(spec)
    except ValueError as error:
        raise EngineChoiceError(f"{choice.name} cannot be so: {error}") from error
    return replace(choice, spec=spec)


def _choice(engine: PublishedEngine) -> EngineChoice:
    spec = EngineSpec(
        engine.latency, num_blocks=engine.kv_tokens // _BLOCK_TOKENS, block_tokens=_BLOCK_TOKENS
    )
    return EngineChoice(engine.name, spec, engine.is_measured, engine.source)
