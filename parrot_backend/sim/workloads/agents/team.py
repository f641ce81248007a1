"""A builder for programs of chatting agents."""

from __future__ import annotations

import random
from collections.abc import Iterable

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Output, Piece, Program, ProgramCall
from parrot_backend.sim.workloads.agents.lengths import LengthRange
from parrot_backend.sim.workloads.building import LATENCY, prompt, text


class Team:
    """Collects the calls of one job.

    Args:
        app: The workflow; its instructions are the same in all jobs.
        job: Sets this job's own texts apart from those of others.
        rng: Draws lengths.
    """

    def __init__(self, app: str, job: str, rng: random.Random) -> None:
        self._app = app
        self._job = job
        self._rng = rng
        self._calls = list[ProgramCall]()

    def instructions(self, name: str, tokens: int) -> tuple[Piece, ...]:
        """Return a text that all jobs of the workflow share."""
        return text(f"{self._app}/{name}", tokens)

    def own(self, name: str, length: LengthRange) -> tuple[Piece, ...]:
        """Return a text of this job; keep it to use it again."""
        return text(f"{self._app}/{self._job}/{name}", length.draw(self._rng))

    def ask(
        self, name: str, stage: str, length: LengthRange, *parts: Piece | Iterable[Piece]
    ) -> Output:
        """Add a call, and return the place of its output.

        Args:
            name: Of the call.
            stage: Its kind.
            length: Of its output.
            parts: Its prompt.
        """
        call = ProgramCall(name, prompt(*parts), length.draw(self._rng), stage=stage)
        self._calls.append(call)
        return Output(name)

    def program(self, wanted: Iterable[Output], criteria: Criteria = LATENCY) -> Program:
        """Return the job, of which these outputs are wanted."""
        outputs = tuple((output.call, criteria) for output in wanted)
        return Program(self._app, tuple(self._calls), outputs)
