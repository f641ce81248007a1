"""What is wrong with a workload's parameters or a program, said once and clearly."""

from __future__ import annotations

import math

from parrot_backend.sim.program import Constant, Program, ProgramCall

#: No text of a prompt or an output is longer; a longer one is a slip, and would fill the memory.
MAX_TOKENS = 10_000_000


class WorkloadError(ValueError):
    """A workload cannot be made as it was asked for.

    Args:
        code: ``unknown_app``, ``unknown_parameter``, ``invalid_parameter`` or ``invalid_program``.
        message: What is wrong, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def positive(name: str, value: float) -> float:
    """Return the value.

    Raises:
        WorkloadError: It is not a finite number above zero.
    """
    if not (math.isfinite(value) and value > 0):
        raise WorkloadError("invalid_parameter", f"{name} must be above zero, not {value}")
    return value


def at_least(name: str, value: int, least: int) -> int:
    """Return the value.

    Raises:
        WorkloadError: It is smaller than the least that makes sense.
    """
    if value < least:
        raise WorkloadError("invalid_parameter", f"{name} must be at least {least}, not {value}")
    return value


def check_program(program: Program) -> None:
    """Check that a program can run: calls have names of their own and read earlier ones.

    Raises:
        WorkloadError: It is not so; the message names the call.
    """
    earlier = set[str]()
    for call in program.calls:
        for problem in _problems(call, earlier):
            raise WorkloadError("invalid_program", f"call {call.name!r} {problem}")
        earlier.add(call.name)
    wanted = [name for name, _ in program.wanted]
    if not wanted:
        raise WorkloadError("invalid_program", "nothing is wanted of the program")
    for name in wanted:
        if name not in earlier:
            raise WorkloadError("invalid_program", f"there is no call {name!r} to want")
        if wanted.count(name) > 1:
            raise WorkloadError("invalid_program", f"call {name!r} is wanted twice")


def _problems(call: ProgramCall, earlier: set[str]) -> list[str]:
    problems = list[str]()
    if call.name in earlier:
        problems.append("has the name of another")
    if not call.prompt:
        problems.append("has no prompt")
    problems += [
        f"needs {name!r}, which does not come before it"
        for name in (*call.reads, *call.after)
        if name not in earlier
    ]
    lengths = [piece.tokens for piece in call.prompt if isinstance(piece, Constant)]
    lengths += [call.output_tokens] if call.max_tokens is None else [call.max_tokens]
    lengths.append(call.output_tokens)
    if not all(1 <= length <= MAX_TOKENS for length in lengths):
        problems.append(f"has a length that is not between 1 and {MAX_TOKENS} tokens")
    elif call.max_tokens is not None and call.max_tokens < call.output_tokens:
        problems.append("makes more tokens than it may")
    if not (math.isfinite(call.think_s) and call.think_s >= 0):
        problems.append(f"has a think time of {call.think_s} s")
    return problems
