"""A driver with a chain of two calls, for tests of engines and timers."""

from __future__ import annotations

from parrot_backend.core.commands import (
    Command,
    StartRequest,
)
from parrot_backend.core.config import CoreConfig
from tests.core.audit import audited_driver
from tests.helpers.builders import (
    make_engine,
    make_steps,
    make_wanted,
)
from tests.helpers.core_driver import CoreDriver, of_type


def driver_with(*engines: str, max_attempts: int = 3, max_requests: int = 16) -> CoreDriver:
    """Return a driver in which waiter ``w`` waits for ``b`` of a chain a, b."""
    driver = audited_driver(
        *(make_engine(name, max_requests=max_requests) for name in engines),
        config=CoreConfig(max_attempts=max_attempts),
    )
    driver.submit(*make_steps("a", "b: a"), wanted=[make_wanted("b", waiter="w", stream=True)])
    return driver


def engines_of(commands: list[Command]) -> list[str]:
    return [start.engine for start in of_type(commands, StartRequest)]


def code_of(driver: CoreDriver, waiter: str = "w") -> str:
    failure = driver.answer(waiter).failure
    assert failure is not None
    return failure.code
