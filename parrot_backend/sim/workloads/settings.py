"""Parameters of an application: typed, checked, with defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parrot_backend.sim.workloads.checks import WorkloadError

Value = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; its type is that of its default.

    Attributes:
        name: As the user writes it; it says the unit.
        default: Its value if nothing is said.
        doc: What it means, in half a sentence.
        least: Smallest value; None for any.
        above: It must be larger than this; None for any.
        choices: The only values there are; empty for any.
    """

    name: str
    default: Value
    doc: str
    least: float | None = None
    above: float | None = None
    choices: tuple[Value, ...] = ()

    def read(self, given: Value) -> Value:
        """Return a value of the right type, from one that may be a text.

        Raises:
            WorkloadError: It has another type, or is out of bounds.
        """
        value = self._typed(given)
        if self.choices and value not in self.choices:
            raise self._error(f"one of {', '.join(map(str, self.choices))}", given)
        if not isinstance(value, str) and not math.isfinite(value):
            raise self._error("finite", given)
        if self.least is not None and not isinstance(value, str) and value < self.least:
            raise self._error(f"at least {self.least:g}", given)
        if self.above is not None and not isinstance(value, str) and value <= self.above:
            raise self._error(f"above {self.above:g}", given)
        return value

    def _typed(self, given: Value) -> Value:
        if isinstance(self.default, bool):
            named = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            value = given if isinstance(given, bool) else named.get(str(given).lower())
            if value is None:
                raise self._error("true or false", given)
            return value
        if isinstance(self.default, str):
            return str(given)
        try:
            if isinstance(given, bool):
                raise ValueError(given)
            if isinstance(self.default, float):
                return float(given)
            if isinstance(given, float) and not given.is_integer():
                raise ValueError(given)
            return int(given)
        except (ValueError, OverflowError):
            wanted = "a whole number" if isinstance(self.default, int) else "a number"
            raise self._error(wanted, given) from None

    def _error(self, wanted: str, given: Value) -> WorkloadError:
        return WorkloadError("invalid_parameter", f"{self.name} must be {wanted}, not {given!r}")


class Settings:
    """Values of all parameters of an application.

    Args:
        app: Its name, for messages.
        parameters: Those it has.
        given: What the user says; the others have their defaults.

    Raises:
        WorkloadError: There is no such parameter, or a value is wrong.
    """

    def __init__(
        self, app: str, parameters: Sequence[Parameter], given: Mapping[str, Value]
    ) -> None:
        known = {parameter.name: parameter for parameter in parameters}
        for name in given:
            if name not in known:
                there = ", ".join(known) or "none"
                message = f"{app} has no parameter {name!r}; it has {there}"
                raise WorkloadError("unknown_parameter", message)
        self._values = {name: p.read(given.get(name, p.default)) for name, p in known.items()}

    def whole(self, name: str) -> int:
        """Return a parameter that is a whole number."""
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def real(self, name: str) -> float:
        """Return a parameter that is a number."""
        value = self._values[name]
        assert isinstance(value, float)
        return value

    def flag(self, name: str) -> bool:
        """Return a parameter that is true or false."""
        value = self._values[name]
        assert isinstance(value, bool)
        return value

    def word(self, name: str) -> str:
        """Return a parameter that is a text."""
        value = self._values[name]
        assert isinstance(value, str)
        return value
