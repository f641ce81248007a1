"""What simulated clients ask for: programs of calls, told by lengths and not by texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from parrot_backend.core.criteria import Criteria

#: Whose a program is of which nothing else is said.
DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Constant:
    """Text of a prompt that the program brings along.

    Attributes:
        key: Equal keys of equal length are equal text, in any program of any client.
        tokens: How long it is; at least 1.
    """

    key: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Output:
    """The place of what an earlier call of the program made."""

    call: str


Piece = Constant | Output


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """One call of a model.

    Attributes:
        name: Distinct within the program.
        prompt: Its pieces, in order. What it reads must come earlier in the program.
        output_tokens: How many tokens it will make; engines know when they made them.
        max_tokens: What the client allows; None for exactly ``output_tokens``.
        stage: What calls of its kind are called, for lengths that are learnt; None for none.
        think_s: The client computes for so long once it has what the call reads, and sends it only
            then: a tool, a person. Needs a round trip even where the server sees the graph.
        after: Further calls that must have ended before, though their outputs are not read.
    """

    name: str
    prompt: tuple[Piece, ...]
    output_tokens: int
    max_tokens: int | None = None
    stage: str | None = None
    think_s: float = 0.0
    after: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Distinct calls whose outputs it reads, in order of first use."""
        return tuple(dict.fromkeys(p.call for p in self.prompt if isinstance(p, Output)))


@dataclass(frozen=True, slots=True)
class Program:
    """One run of an application: a job.

    Attributes:
        app: Name of the application; lengths are learnt per application and stage.
        calls: In an order in which every call comes after what it reads.
        wanted: Calls whose outputs the user gets, and what is asked for each; deadlines count from
            when the server has the submit. A job has ended when all of them are there.
        tenant: Who it belongs to; prefixes are shared within a tenant, and service among tenants.
    """

    app: str
    calls: tuple[ProgramCall, ...]
    wanted: tuple[tuple[str, Criteria], ...]
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Arrival:
    """A program that a client begins at a time.

    Attributes:
        time_s: On the simulated clock.
        program: What it runs.
        user: Which of its tenant's users has it, for policies that keep a user's calls on one
            engine; "" for no one.
    """

    time_s: float
    program: Program
    user: str = ""


#: Arrivals in order of time; may be endless, and is drawn from as time goes on.
Workload = Iterable[Arrival]
