"""How long a caller is willing to wait."""

from __future__ import annotations

import time

from parrot_integrations.errors import WaitTimeout


class Deadline:
    """A point in time, ``timeout_s`` seconds from now; None is never."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._at_s = None if timeout_s is None else time.monotonic() + timeout_s

    def remaining_s(self) -> float | None:
        """Return the seconds left, not below 0; None means any time."""
        return None if self._at_s is None else max(self._at_s - time.monotonic(), 0.0)

    def check(self, what: str) -> None:
        """Raise when the time is up.

        Raises:
            WaitTimeout: Naming ``what`` was waited for.
        """
        if self.remaining_s() == 0.0:
            raise WaitTimeout(
                "wait_timeout",
                f"{what} was not there within {self._timeout_s:g} s; the work goes on, and getting "
                "it again resumes the wait",
            )
