"""Getting several values at once, wanted together in one request."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.protocol import WireCriteria
from parrot_integrations._program import Program
from parrot_integrations.criteria import UNSTATED
from parrot_integrations.deadline import Deadline
from parrot_integrations.values import Known
from parrot_integrations.variable import SemanticVariable


def get_all(
    variables: Sequence[SemanticVariable],
    perf: WireCriteria = UNSTATED,
    timeout_s: float | None = None,
) -> list[str]:
    """Return the values of several variables, waiting for all of them.

    Args:
        variables: In the order in which the values are returned.
        perf: Applies to each.
        timeout_s: Longest wait for all together.

    Raises:
        ParrotError: What ``get`` would raise for the first of them that has no value.
    """
    deadline = Deadline(timeout_s)
    for program, names in _missing(variables).items():
        program.check_blocking()
        program.want(names, perf)
    return [v.slot.wait_until(Known.is_final, deadline, repr(v)).value() for v in variables]


async def aget_all(
    variables: Sequence[SemanticVariable],
    perf: WireCriteria = UNSTATED,
    timeout_s: float | None = None,
) -> list[str]:
    """Return the values of several variables, awaiting all of them; as :func:`get_all`."""
    deadline = Deadline(timeout_s)
    for program, names in _missing(variables).items():
        program.want(names, perf)
    knowns = [await v.slot.await_until(Known.is_final, deadline, repr(v)) for v in variables]
    return [known.value() for known in knowns]


def _missing(variables: Sequence[SemanticVariable]) -> dict[Program, list[str]]:
    missing: dict[Program, list[str]] = {}
    for variable in variables:
        if variable.slot.known.view is None:
            program, name = variable.place()
            missing.setdefault(program, []).append(name)
    return missing
