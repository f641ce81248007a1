"""What follows from a program before it runs: who waits for whom, and whether it can run at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

from parrot_backend.sim.program import Output, Program, ProgramCall
from parrot_backend.sim.workloads.checks import MAX_TOKENS, WorkloadError


@dataclass(frozen=True, slots=True)
class Plan:
    """A program by positions of its calls.

    Attributes:
        position: Of each call, by name.
        needs: Calls that must have ended before each call.
        readers: Calls that need each call.
        continued: Calls with whose prompt and output the prompt of another one begins.
        wanted: Positions of the wanted calls.
        output_tokens: What all calls make together.
    """

    position: dict[str, int]
    needs: tuple[tuple[int, ...], ...]
    readers: tuple[tuple[int, ...], ...]
    continued: frozenset[int]
    wanted: tuple[int, ...]
    output_tokens: int


def made_tokens(call: ProgramCall) -> int:
    """Return how many tokens a call makes: what it would, as far as its client allows."""
    if call.max_tokens is None:
        return call.output_tokens
    return min(call.output_tokens, call.max_tokens)


def check_program(program: Program) -> None:
    """Check that a program can run, and that no call makes more than its client allows.

    Raises:
        WorkloadError: ``invalid_program``; the message names the call.
    """
    plan_of(program)
    for call in program.calls:
        if made_tokens(call) < call.output_tokens:
            raise _invalid(f"call {call.name!r} makes more tokens than it may")


def plan_of(program: Program) -> Plan:
    """Return a program's plan.

    Raises:
        WorkloadError: ``invalid_program``: it is empty, names what is not there, or has impossible
            lengths.
    """
    position: dict[str, int] = {}
    needs: list[tuple[int, ...]] = []
    readers: list[list[int]] = []
    continued = set[int]()
    for number, call in enumerate(program.calls):
        _check_call(call)
        needed: dict[int, None] = {}
        for place, piece in enumerate(call.prompt):
            if isinstance(piece, Output):
                maker = _earlier(position, call, piece.call)
                needed[maker] = None
                before = program.calls[maker].prompt
                if len(before) == place and call.prompt[:place] == before:
                    continued.add(maker)
            else:
                _check_length(call, piece.tokens)
        for name in call.after:
            needed[_earlier(position, call, name)] = None
        for other in needed:
            readers[other].append(number)
        if call.name in position:
            raise _invalid(f"call {call.name!r} has the name of another")
        position[call.name] = number
        needs.append(tuple(needed))
        readers.append([])
    return Plan(
        position,
        tuple(needs),
        tuple(map(tuple, readers)),
        frozenset(continued),
        _wanted(program, position),
        sum(map(made_tokens, program.calls)),
    )


def _invalid(message: str) -> WorkloadError:
    return WorkloadError("invalid_program", message)


def _check_call(call: ProgramCall) -> None:
    if not call.prompt:
        raise _invalid(f"call {call.name!r} has no prompt")
    _check_length(call, call.output_tokens)
    if call.max_tokens is not None:
        _check_length(call, call.max_tokens)
    if not 0.0 <= call.think_s < math.inf:
        raise _invalid(f"call {call.name!r} has a think time of {call.think_s} s")


def _check_length(call: ProgramCall, tokens: int) -> None:
    if not 1 <= tokens <= MAX_TOKENS:
        bounds = f"that is not between 1 and {MAX_TOKENS} tokens"
        raise _invalid(f"call {call.name!r} has a length of {tokens} tokens {bounds}")


def _earlier(position: dict[str, int], call: ProgramCall, name: str) -> int:
    found = position.get(name)
    if found is None:
        raise _invalid(f"call {call.name!r} needs {name!r}, which does not come before it")
    return found


def _wanted(program: Program, position: dict[str, int]) -> tuple[int, ...]:
    names = [name for name, _ in program.wanted]
    if not names:
        raise _invalid("nothing is wanted of the program")
    for name in names:
        if name not in position:
            raise _invalid(f"there is no call {name!r} to want")
        if names.count(name) > 1:
            raise _invalid(f"call {name!r} is wanted twice")
    return tuple(position[name] for name in names)
