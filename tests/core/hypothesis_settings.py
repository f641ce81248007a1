"""How many examples a property is tried on; the same ones in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def examples(number: int, *, shrinks: bool = True) -> settings:
    """Return settings for that many examples, without a clock or a database.

    Args:
        number: How many.
        shrinks: Whether a failing example is made smaller. For a whole history that takes
            minutes, so it is off there; switch it on to study a failure.
    """
    shrinking = (Phase.shrink,) if shrinks else ()
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, *shrinking),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
