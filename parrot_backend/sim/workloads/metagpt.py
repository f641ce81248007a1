"""Multi-agent programming as in the paper's figure 18, with the lengths of 57 recorded calls.

An architect designs, a programmer writes each file, then reviewers comment on each file and
programmers revise it, in rounds; a round begins when the one before has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Output, Piece, Program, ProgramCall
from parrot_backend.sim.workloads.arrivals import jobs_at
from parrot_backend.sim.workloads.building import LATENCY, prompt, text
from parrot_backend.sim.workloads.checks import at_least
from parrot_backend.sim.workloads.tables import MetagptCall, metagpt

#: Rounds of the recording: design, code, then review and revision three times.
_DESIGN, _CODE = "r0", "r1"
_REVIEW_ROUNDS = (("r2", "r3"), ("r4", "r5"), ("r6", "r7"))


def metagpt_program(
    num_files: int,
    project: str,
    review_rounds: int = 3,
    criteria: Criteria = LATENCY,
    *,
    as_replayed: bool = False,
) -> Program:
    """Return the program of one project.

    Args:
        num_files: Programmers; the recording's eight files are taken in turn.
        project: Equal names are equal projects; others share no text.
        review_rounds: Rounds of review and revision; the three recorded ones are taken in turn.
        criteria: What is asked for each revised file.
        as_replayed: As the paper's artifact replays it (with four review rounds): the first
            recorded review and revision again and again, one architect for each file, and prompts
            that are there from the start, so that rounds wait for each other but nothing flows.

    Raises:
        WorkloadError: There is no file, or a negative number of rounds.
    """
    at_least("num_files", num_files, 1)
    at_least("review_rounds", review_rounds, 0)
    rounds = [_DESIGN, _CODE]
    for number in range(review_rounds):
        rounds += _REVIEW_ROUNDS[0 if as_replayed else number % len(_REVIEW_ROUNDS)]
    calls: list[ProgramCall] = []
    before: list[ProgramCall] = []
    for number, name in enumerate(rounds):
        recorded = metagpt()[name]
        many = num_files if name != _DESIGN or as_replayed else 1
        files = [recorded[file % len(recorded)] for file in range(many)]
        reads = [] if as_replayed else before[: len(recorded)]
        where = f"{project}/{name}" if as_replayed else f"{project}/{number}-{name}"
        shared = _shared(recorded[0].shared_tokens, reads, where)
        before = [
            ProgramCall(
                f"{number}-{position}",
                prompt(shared, _own(file, position, where)),
                file.output_tokens,
                stage=_stage(number),
                after=tuple(call.name for call in before[len(reads) :]),
            )
            for position, file in enumerate(files)
        ]
        calls += before
    return Program("metagpt", tuple(calls), tuple((call.name, criteria) for call in before))


def metagpt_jobs(
    times_s: Iterable[float],
    num_files: int,
    review_rounds: int = 3,
    run: str = "",
    *,
    as_replayed: bool = False,
) -> Iterator[Arrival]:
    """Return a project at each time, none like another; see :func:`metagpt_program`."""

    def make(number: int) -> Program:
        project = f"metagpt/{run}/{number}"
        return metagpt_program(num_files, project, review_rounds, as_replayed=as_replayed)

    return jobs_at(times_s, make)


def _shared(shared_tokens: int, reads: Sequence[ProgramCall], where: str) -> tuple[Piece, ...]:
    """Return how all prompts of a round begin: instructions, then what the round before made.

    Which texts these were is not in the table; that they fit into it is.
    """
    own_tokens = shared_tokens - sum(call.output_tokens for call in reads)
    return prompt(text(f"{where}/shared", own_tokens), (Output(call.name) for call in reads))


def _own(file: MetagptCall, position: int, where: str) -> tuple[Piece, ...]:
    # Where nothing is said to be shared there was one architect; replayed ones ask the same.
    name = str(position) if file.shared_tokens else "whole"
    return text(f"{where}/{name}", file.prompt_tokens - file.shared_tokens)


def _stage(round_number: int) -> str:
    if round_number < 2:
        return ("design", "code")[round_number]
    return ("review", "revise")[round_number % 2]
