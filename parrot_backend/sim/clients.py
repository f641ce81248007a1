"""Simulated clients: one that sends whole programs, and one that sends call after call.

Each request takes half a round trip there, and its reply half of it back. A client ends its
session when it has all that is wanted, or at the first error; calls that nobody wants then end
with it.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.events import (
    CancelRequested,
    GraphSubmitted,
    SessionClosed,
    VariableSet,
)
from parrot_backend.core.ids import SessionId, WaiterId, variable_id
from parrot_backend.errors import CapacityError, Failure, ParrotError
from parrot_backend.sim.delays import Delays
from parrot_backend.sim.event_loop import EventLoop, Turn
from parrot_backend.sim.jobs import ClientSession, Job, JobBook, LiveCall
from parrot_backend.sim.plan import ProgramError
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.shell import SimShell
from parrot_backend.sim.spec import ClientSpec
from parrot_backend.sim.submits import call_submit, graph_submit, sent_name, sent_text
from parrot_backend.sim.texts import ConstantTexts
from parrot_backend.sim.user_sessions import UserSessions

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
            job = self._book.open(arrival, lambda number: self._session(number, arrival.user))
        except ProgramError:
            return  # told by the record of the job
        self._begin(job)

    @abstractmethod
    def _session(self, number: int, user: str) -> ClientSession:
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


class GraphClient(SimClient):
    """Sends each program as one graph, and sets the variables that depend on its own work."""

    def _session(self, number: int, user: str) -> ClientSession:
        return ClientSession(SessionId(f"j{number}"))

    def _begin(self, job: Job) -> None:
        self._send(job, 1)

    def _send(self, job: Job, num_tries: int) -> None:
        half_s = self._draw_half_s(job)
        self._later(self._spec.overhead_s + half_s, self._arrived, job, half_s, num_tries)

    def _arrived(self, job: Job, half_s: float, num_tries: int) -> None:
        def make() -> GraphSubmitted:
            awaited = dict.fromkeys((*job.plan.wanted, *_needed_by_client(job)))
            waiters = {position: self._wait_for(job, position, half_s) for position in awaited}
            return graph_submit(job, waiters, self._texts, self._loop.now_s)

        def again(number: int) -> None:
            self._send(job, number)

        positions = range(len(job.program.calls))
        if self._submit(job, half_s, num_tries, positions, make, again):
            self._set_what_needs_nothing(job)

    def _set_what_needs_nothing(self, job: Job) -> None:
        """Send what the client has computed since it began, or will have."""
        for position, call in enumerate(job.program.calls):
            if call.think_s and not job.missing[position]:
                sent_s = job.arrived_s + call.think_s + self._spec.overhead_s
                arrives_s = sent_s + self._draw_half_s(job)
                self._loop.at(arrives_s, self._set_arrived, job, position, turn=Turn.CLIENT)

    def _answered(self, answer: AnswerWaiter) -> None:
        job, position, half_s = self._waiting.pop(answer.waiter)
        if job.is_over or not job.num_awaited:
            return
        if answer.failure is not None:
            job.num_awaited = 0
            self._later(half_s, self._end, job, _told(answer.failure))
            self._close(job)
            return
        if any(job.program.calls[reader].think_s for reader in job.plan.readers[position]):
            self._later(half_s, self._got, job, position)
        if position in job.plan.wanted:
            job.num_awaited -= 1
            if not job.num_awaited:
                self._later(half_s, self._end, job)
                self._close(job)

    def _got(self, job: Job, position: int) -> None:
        """Go on with what the client computes from an output."""
        for reader in job.plan.readers[position]:
            call = job.program.calls[reader]
            job.missing[reader] -= 1
            if call.think_s and not job.missing[reader]:
                self._later(call.think_s, self._set, job, reader)

    def _set(self, job: Job, position: int) -> None:
        half_s = self._draw_half_s(job)
        self._later(self._spec.overhead_s + half_s, self._set_arrived, job, position)

    def _set_arrived(self, job: Job, position: int) -> None:
        if job.is_over or not job.num_awaited:
            return
        variable = variable_id(job.session.id, sent_name(job, position))
        self._shell.dispatch(VariableSet(variable, sent_text(job, position, self._texts)))

    def _close(self, job: Job) -> None:
        if job.session.is_open:
            job.session.is_open = False
            self._shell.dispatch(SessionClosed(job.session.id))


class CallsClient(SimClient):
    """Sends each call by itself when it has what the call reads."""

    def __init__(
        self, shell: SimShell, loop: EventLoop, spec: ClientSpec, seed: int, book: JobBook
    ) -> None:
        super().__init__(shell, loop, spec, seed, book)
        self._users = UserSessions()

    def _session(self, number: int, user: str) -> ClientSession:
        return self._users.of(user) if user else ClientSession(SessionId(f"j{number}"))

    def _begin(self, job: Job) -> None:
        for position, missing in enumerate(job.missing):
            if not missing:
                self._send_when_ready(job, position)

    def _send_when_ready(self, job: Job, position: int) -> None:
        think_s = job.program.calls[position].think_s
        if think_s:
            self._later(think_s, self._send, job, position, 1)
        else:
            self._send(job, position, 1)

    def _send(self, job: Job, position: int, num_tries: int) -> None:
        half_s = self._draw_half_s(job)
        self._later(self._spec.overhead_s + half_s, self._arrived, job, position, half_s, num_tries)

    def _arrived(self, job: Job, position: int, half_s: float, num_tries: int) -> None:
        def make() -> GraphSubmitted:
            waiter = self._wait_for(job, position, half_s)
            return call_submit(job, position, waiter, self._texts, self._loop.now_s)

        def again(number: int) -> None:
            if not job.is_over:
                self._send(job, position, number)

        job.session.num_calls += 1
        self._submit(job, half_s, num_tries, (position,), make, again)

    def _answered(self, answer: AnswerWaiter) -> None:
        job, position, half_s = self._waiting.pop(answer.waiter)
        if not job.is_over:
            self._later(half_s, self._got, job, position, answer.failure)

    def _got(self, job: Job, position: int, failure: Failure | None) -> None:
        if job.is_over:
            return
        if failure is not None:
            self._fail(job, _told(failure))
            return
        if position in job.plan.wanted:
            job.num_awaited -= 1
            if not job.num_awaited:
                self._end(job)
                self._close(job)
                return
        for reader in job.plan.readers[position]:
            job.missing[reader] -= 1
            if not job.missing[reader]:
                self._send_when_ready(job, reader)

    def _close(self, job: Job) -> None:
        session = job.session
        session.num_jobs -= 1
        if self._users.is_done(session):
            if session.is_open:
                session.is_open = False
                self._shell.dispatch(SessionClosed(session.id))
            return
        sent = {node.rpartition("#")[0] for node in job.nodes}
        mine = tuple(v for p in range(len(job.program.calls)) if (v := job.variable(p)) in sent)
        if mine:
            self._shell.dispatch(CancelRequested(session.id, mine))


def _needed_by_client(job: Job) -> list[int]:
    """Return the calls whose outputs the client needs for what it sends later."""
    return [
        needed
        for position, call in enumerate(job.program.calls)
        if call.think_s
        for needed in job.plan.needs[position]
    ]


def _told(failure: Failure) -> str:
    return f"{failure.code}: {failure.message}"
