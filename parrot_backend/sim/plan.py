"""What follows from a program before it runs: who waits for whom, and whether it can run at all."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.sim.program import Constant, Output, Program, ProgramCall


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
        try:
            needed = tuple(dict.fromkeys(position[name] for name in (*call.reads, *call.after)))
        except KeyError as exc:
            raise ProgramError(f"{call.name!r} needs {exc.args[0]!r}, no earlier call") from None
        for other in needed:
            readers[other].append(number)
        for place, piece in enumerate(call.prompt):
            if isinstance(piece, Output):
                maker = position[piece.call]
                before = program.calls[maker].prompt
                if len(before) == place and call.prompt[:place] == before:
                    continued.add(maker)
        if call.name in position:
            raise ProgramError(f"two calls are named {call.name!r}")
        position[call.name] = number
        needs.append(needed)
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
    for piece in call.prompt:
        if isinstance(piece, Constant) and piece.tokens < 1:
            raise ProgramError(f"{call.name!r} has a text of {piece.tokens} tokens")


def _wanted(program: Program, position: dict[str, int]) -> tuple[int, ...]:
    names = [name for name, _ in program.wanted]
    unknown = [name for name in names if name not in position]
    if unknown:
        raise ProgramError(f"no call is named {unknown[0]!r}, but it is wanted")
    if not names or len(set(names)) < len(names):
        raise ProgramError("it wants nothing, or something twice")
    return tuple(position[name] for name in names)
