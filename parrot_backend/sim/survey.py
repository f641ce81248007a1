"""What a workload asks for, looked at before anything is simulated: amounts, and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from parrot_backend.sim.bound import bound
from parrot_backend.sim.plan import made_tokens
from parrot_backend.sim.program import Arrival, Output, Program, ProgramCall
from parrot_backend.sim.spec import ClientSpec, EngineSpec

#: The bound is the mean of the first so many jobs.
_BOUND_JOBS = 40


@dataclass(frozen=True, slots=True)
class CallLength:
    """A call and how long it is, with its job's number."""

    job: int
    call: str
    prompt_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """Prompt and output."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Survey:
    """What a workload asks for.

    Attributes:
        num_jobs: Its jobs.
        num_calls: Their calls.
        num_tenants: Whose they are.
        first_s: When the first job begins.
        last_s: When the last one does.
        prompt_tokens: Of all calls together.
        output_tokens: Likewise.
        longest: The call with most tokens; None without calls.
        num_too_long: Jobs with a call that is longer than the limit.
        too_long: The first such call; None for none.
        sample: The first programs.
    """

    num_jobs: int
    num_calls: int
    num_tenants: int
    first_s: float
    last_s: float
    prompt_tokens: int
    output_tokens: int
    longest: CallLength | None
    num_too_long: int
    too_long: CallLength | None
    sample: tuple[Program, ...]

    @property
    def rate_per_s(self) -> float:
        """Jobs per second from first to last; NaN if all begin at once."""
        span_s = self.last_s - self.first_s
        return (self.num_jobs - 1) / span_s if span_s > 0 else math.nan


def survey_of(arrivals: Iterable[Arrival], limit_tokens: float = math.inf) -> Survey:
    """Look at all jobs, one by one.

    Args:
        arrivals: The jobs.
        limit_tokens: Longest prompt and output that can run.
    """
    num_jobs = num_calls = prompt_tokens = output_tokens = num_too_long = 0
    first_s = last_s = 0.0
    longest: CallLength | None = None
    too_long: CallLength | None = None
    sample, tenants = list[Program](), set[str]()
    for job, arrival in enumerate(arrivals):
        num_jobs += 1
        tenants.add(arrival.program.tenant)
        first_s, last_s = (first_s if job else arrival.time_s), arrival.time_s
        if job < _BOUND_JOBS:
            sample.append(arrival.program)
        in_job: CallLength | None = None
        for length in _lengths(job, arrival.program):
            num_calls += 1
            prompt_tokens += length.prompt_tokens
            output_tokens += length.output_tokens
            if in_job is None or length.tokens > in_job.tokens:
                in_job = length
        if in_job is None:
            continue
        if longest is None or in_job.tokens > longest.tokens:
            longest = in_job
        if in_job.tokens > limit_tokens:
            num_too_long += 1
            too_long = too_long or in_job
    return Survey(
        num_jobs,
        num_calls,
        len(tenants),
        first_s,
        last_s,
        prompt_tokens,
        output_tokens,
        longest,
        num_too_long,
        too_long,
        tuple(sample),
    )


def limit_of(spec: EngineSpec) -> int:
    """Return the longest prompt and output that an engine takes."""
    return min(spec.max_model_len, spec.num_blocks * spec.block_tokens)


def mean_bound_s(
    programs: Sequence[Program], engine: EngineSpec, client: ClientSpec, num_engines: int
) -> float:
    """Return the mean of the zero-load bounds of programs, each after those before it.

    NaN without programs.
    """
    bounds = [
        bound(program, engine, client, num_engines=num_engines, warm=programs[:number]).job_s
        for number, program in enumerate(programs)
    ]
    return math.fsum(bounds) / len(bounds) if bounds else math.nan


def _lengths(job: int, program: Program) -> Iterator[CallLength]:
    made = {call.name: made_tokens(call) for call in program.calls}
    for call in program.calls:
        yield CallLength(job, call.name, _prompt_tokens(call, made), made[call.name])


def _prompt_tokens(call: ProgramCall, made: dict[str, int]) -> int:
    return sum(
        made[piece.call] if isinstance(piece, Output) else piece.tokens for piece in call.prompt
    )
