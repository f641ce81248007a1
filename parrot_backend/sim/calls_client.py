"""The client that sends call after call, and brings outputs to where they are read."""

from __future__ import annotations

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.events import CancelRequested, GraphSubmitted, SessionClosed
from parrot_backend.core.ids import SessionId
from parrot_backend.errors import Failure
from parrot_backend.sim.client import SimClient, told
from parrot_backend.sim.event_loop import EventLoop
from parrot_backend.sim.jobs import ClientSession, Job, JobBook
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.shell import SimShell
from parrot_backend.sim.spec import ClientSpec
from parrot_backend.sim.submits import call_submit
from parrot_backend.sim.user_sessions import UserSessions


class CallsClient(SimClient):
    """Sends each call by itself when it has what the call reads."""

    def __init__(
        self, shell: SimShell, loop: EventLoop, spec: ClientSpec, seed: int, book: JobBook
    ) -> None:
        super().__init__(shell, loop, spec, seed, book)
        self._users = UserSessions()

    def _session(self, number: int, arrival: Arrival) -> ClientSession:
        if not arrival.user:
            return ClientSession(SessionId(f"j{number}"))
        return self._users.of(arrival.user, arrival.program.tenant)

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
            self._fail(job, told(failure))
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
