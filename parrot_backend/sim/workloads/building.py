"""Small parts that programs of all applications are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim.program import (
    DEFAULT_TENANT,
    Constant,
    Output,
    Piece,
    Program,
    ProgramCall,
)

LATENCY = Criteria(CriteriaKind.LATENCY)
THROUGHPUT = Criteria(CriteriaKind.THROUGHPUT)


def text(key: str, tokens: int) -> tuple[Piece, ...]:
    """Return a text as pieces of a prompt: one, or none if it is empty."""
    return (Constant(key, tokens),) if tokens > 0 else ()


def prompt(*parts: Piece | Iterable[Piece]) -> tuple[Piece, ...]:
    """Return a prompt made of pieces and of lists of pieces."""
    return tuple(_flat(parts))


def single_call(
    app: str,
    pieces: tuple[Piece, ...],
    output_tokens: int,
    criteria: Criteria = LATENCY,
    tenant: str = DEFAULT_TENANT,
) -> Program:
    """Return a program of one call, ``answer``."""
    call = ProgramCall("answer", pieces, output_tokens, stage="answer")
    return Program(app, (call,), (("answer", criteria),), tenant)


def _flat(parts: Iterable[Piece | Iterable[Piece]]) -> Iterator[Piece]:
    for part in parts:
        if isinstance(part, Constant | Output):
            yield part
        else:
            yield from part
