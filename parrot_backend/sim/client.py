"""What simulated clients have in common: they draw round trips, send, try again and end jobs.

Each request takes half a round trip there, and its reply half of it back. A client ends its
session when it has all that is wanted, or at the first error; calls that nobody wants then end
with it.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.events import GraphSubmitted
from parrot_backend.core.ids import WaiterId
from parrot_backend.errors import CapacityError, Failure, ParrotError
from parrot_backend.sim.delays import Delays
from parrot_backend.sim.event_loop import EventLoop, Turn
from parrot_backend.sim.jobs import ClientSession, Job, JobBook, LiveCall
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.shell import SimShell
from parrot_backend.sim.spec import ClientSpec
from parrot_backend.sim.texts import ConstantTexts
from parrot_backend.sim.workloads.checks import WorkloadError

#: How often a client sends what a full server did not take, like the real one.
_MAX_TRIES = 5


class SimClient(ABC):
    """What both kinds of clients have in common.

    Args:
        shell: The server.
        loop: The clock.
        spec: Round trips and overheads.
        seed: Of the round trips.
        book: The jobs.
    """

    def __init__(
        self, shell: SimShell, loop: EventLoop, spec: ClientSpec, seed: int, book: JobBook
    ) -> None:
        self._shell = shell
        self._loop = loop
        self._spec = spec
        self._delays = Delays(spec.round_trip, seed)
        self._book = book
        self._texts = ConstantTexts()
        self._waiter_numbers = itertools.count(1)
        self._waiting: dict[WaiterId, tuple[Job, int, float]] = {}
        shell.answer = self._answered

    def arrive(self, arrival: Arrival) -> None:
        """Begin a program."""
        try:
            job = self._book.open(arrival, lambda number: self._session(number, arrival))
        except WorkloadError:
            return  # told by the record of the job
        self._begin(job)

    @abstractmethod
    def _session(self, number: int, arrival: Arrival) -> ClientSession:
        """Return the session of a job."""

    @abstractmethod
    def _begin(self, job: Job) -> None:
        """Send what can be sent at once."""

    @abstractmethod
    def _answered(self, answer: AnswerWaiter) -> None:
        """Take in an answer that leaves the server."""

    @abstractmethod
    def _close(self, job: Job) -> None:
        """End a job's session, or its part of it."""

    def _draw_half_s(self, job: Job) -> float:
        """Return half a round trip of a job's next request."""
        job.num_requests += 1
        return self._delays.draw_s(job.number, job.num_requests) / 2

    def _later(self, delay_s: float, callback: Callable[..., None], *args: object) -> None:
        self._loop.at(self._loop.now_s + delay_s, callback, *args, turn=Turn.CLIENT)

    def _wait_for(self, job: Job, position: int, half_s: float) -> WaiterId:
        waiter = WaiterId(f"w{next(self._waiter_numbers)}")
        self._waiting[waiter] = (job, position, half_s)
        return waiter

    def _submit(
        self,
        job: Job,
        half_s: float,
        num_tries: int,
        positions: Sequence[int],
        make: Callable[[], GraphSubmitted],
        again: Callable[[int], None],
    ) -> bool:
        """Hand a submit to the server, that has just come there; return whether it was taken.

        Args:
            job: Whose it is.
            half_s: Half of its round trip.
            num_tries: How often it was sent, this time included.
            positions: Calls that it holds.
            make: Returns it.
            again: Sends it once more, as that try.
        """
        if job.is_over:
            return False
        event, was_open = make(), job.session.is_open
        job.session.is_open = True
        try:
            self._shell.submit(event, [LiveCall(job, position) for position in positions])
        except ParrotError as exc:
            job.session.is_open = was_open
            for wanted in event.wanted:
                if wanted.waiter is not None:
                    del self._waiting[wanted.waiter]
            if isinstance(exc, CapacityError) and num_tries < _MAX_TRIES:
                self._later(half_s + exc.retry_after_s, again, num_tries + 1)
            else:
                self._later(half_s, self._fail, job, f"{exc.code}: {exc.message}")
            return False
        return True

    def _fail(self, job: Job, failed: str) -> None:
        if not job.is_over:
            self._end(job, failed)
            self._close(job)

    def _end(self, job: Job, failed: str = "") -> None:
        self._book.end(job, self._loop.now_s, failed)
        self._shell.forget(job.nodes)


def told(failure: Failure) -> str:
    """Return a failure in one line."""
    return f"{failure.code}: {failure.message}"
