"""The client that sends each program as one graph."""

from __future__ import annotations

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.events import GraphSubmitted, SessionClosed, VariableSet
from parrot_backend.core.ids import SessionId, variable_id
from parrot_backend.sim.client import SimClient, told
from parrot_backend.sim.event_loop import Turn
from parrot_backend.sim.jobs import ClientSession, Job
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.submits import graph_submit, sent_name, sent_text


class GraphClient(SimClient):
    """Sends each program as one graph, and sets the variables that depend on its own work."""

    def _session(self, number: int, arrival: Arrival) -> ClientSession:
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
            self._later(half_s, self._end, job, told(answer.failure))
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


def _needed_by_client(job: Job) -> list[int]:
    """Return the calls whose outputs the client needs for what it sends later."""
    return [
        needed
        for position, call in enumerate(job.program.calls)
        if call.think_s
        for needed in job.plan.needs[position]
    ]
