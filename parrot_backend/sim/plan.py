"""What follows from a program before it runs: who waits for whom, and whether it can run at all."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.sim.program import Output, Program, ProgramCall


class ProgramError(ValueError):
    """A program cannot run; the message says why."""


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


def plan_of(program: Program) -> Plan:
    """Return a program's plan.

    Raises:
        ProgramError: It is empty, names what is not there, or has impossible lengths.
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
            elif piece.tokens < 1:
                raise ProgramError(f"{call.name!r} has a text of {piece.tokens} tokens")
        for name in call.after:
            needed[_earlier(position, call, name)] = None
        for other in needed:
            readers[other].append(number)
        if call.name in position:
            raise ProgramError(f"two calls are named {call.name!r}")
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


def _check_call(call: ProgramCall) -> None:
    if not call.prompt:
        raise ProgramError(f"{call.name!r} has no prompt")
    if made_tokens(call) < 1:
        raise ProgramError(f"{call.name!r} makes no token")
    if not call.think_s >= 0.0:
        raise ProgramError(f"{call.name!r} waits for {call.think_s} s")


def _earlier(position: dict[str, int], call: ProgramCall, name: str) -> int:
    found = position.get(name)
    if found is None:
        raise ProgramError(f"{call.name!r} needs {name!r}, no earlier call")
    return found


def _wanted(program: Program, position: dict[str, int]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for name, _ in program.wanted:
        if name not in position:
            raise ProgramError(f"no call is named {name!r}, but it is wanted")
        found[position[name]] = None
    if not found or len(found) < len(program.wanted):
        raise ProgramError("it wants nothing, or something twice")
    return tuple(found)
