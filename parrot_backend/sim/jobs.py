"""Jobs and calls that are under way, and nothing of those that have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from parrot_backend.core.commands import StartRequest
from parrot_backend.core.ids import NodeId, SessionId, VariableId, variable_id
from parrot_backend.sim.plan import Plan, plan_of
from parrot_backend.sim.program import Arrival, Program, ProgramCall
from parrot_backend.sim.records import JobRecord, RecordSink
from parrot_backend.sim.workloads.checks import WorkloadError


@dataclass(slots=True, eq=False)
class ClientSession:
    """A session as its client knows it.

    Attributes:
        id: Its id.
        is_run: It is one job, and not all that some user does.
        is_open: The server has taken something in for it.
        num_calls: Calls that were sent in it.
        num_jobs: Live jobs that use it.
    """

    id: SessionId
    is_run: bool = True
    is_open: bool = False
    num_calls: int = 0
    num_jobs: int = 1


@dataclass(slots=True, eq=False)
class Job:
    """One program that a client runs.

    Attributes:
        number: Position among all arrivals.
        session: Where its calls are.
        missing: For each call, how many that it needs have not ended, as far as its client knows.
        num_awaited: Wanted outputs that are not there.
        num_requests: Requests that its client has sent.
        nodes: Its calls as the server knows them.
        is_over: It has all it wanted, or has failed.
    """

    number: int
    program: Program
    plan: Plan
    arrived_s: float
    session: ClientSession
    missing: list[int]
    num_awaited: int
    num_requests: int = 0
    nodes: list[NodeId] = field(default_factory=list)
    is_over: bool = False

    def variable(self, position: int) -> VariableId:
        """Return the variable that a call makes."""
        return variable_id(self.session.id, self.name(position))

    def name(self, position: int) -> str:
        """Return the name of a call and its output in its session."""
        name = self.program.calls[position].name
        return name if self.session.is_run else f"{self.number}-{name}"


@dataclass(slots=True, eq=False)
class LiveCall:
    """One call that the server knows and that has not ended.

    Attributes:
        node: Its id in the core.
        spec: What its program says of it.
        ready_s: When it was first ready.
        placed_s: When the present attempt began, like all that follows.
    """

    job: Job
    position: int
    node: NodeId = field(init=False)
    spec: ProgramCall = field(init=False)
    ready_s: float | None = None
    placed_s: float = 0.0
    prompt_tokens: int = 0
    attempts: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        job = self.job
        self.node = NodeId(f"{job.session.id}.{job.name(self.position)}#0")
        self.spec = job.program.calls[self.position]

    def begin(self, command: StartRequest, now_s: float) -> None:
        """Take in that an attempt begins."""
        self.placed_s = now_s
        self.prompt_tokens = command.prefixes[-1].tokens
        self.attempts += 1
        self.reason = command.reason


class JobBook:
    """Live jobs; each ends with one record.

    Args:
        sink: Takes the records.
        when_ended: Called when a job has ended.
    """

    def __init__(self, sink: RecordSink, when_ended: Callable[[], None]) -> None:
        self._sink = sink
        self._when_ended = when_ended
        self._live: dict[int, Job] = {}
        self.num_arrived = 0

    def __len__(self) -> int:
        return len(self._live)

    def open(self, arrival: Arrival, make_session: Callable[[int], ClientSession]) -> Job:
        """Begin a job.

        Args:
            arrival: What came.
            make_session: Gives its session for the number of the job.

        Raises:
            WorkloadError: The program cannot run; the job has ended.
        """
        number = self.num_arrived
        self.num_arrived += 1
        program = arrival.program
        try:
            plan = plan_of(program)
        except WorkloadError as exc:
            self._record(number, program, arrival.time_s, arrival.time_s, 0, f"invalid: {exc}")
            raise
        missing = [len(needed) for needed in plan.needs]
        job = Job(
            number,
            program,
            plan,
            arrival.time_s,
            make_session(number),
            missing,
            len(plan.wanted),
        )
        self._live[number] = job
        return job

    def end(self, job: Job, now_s: float, failed: str = "") -> None:
        """End a job: its client has all it wanted, or an error."""
        job.is_over = True
        del self._live[job.number]
        tokens = job.plan.output_tokens
        self._record(job.number, job.program, job.arrived_s, now_s, tokens, failed)

    def end_all(self, now_s: float, failed: str) -> None:
        """End what is left, because the simulation ends."""
        for job in list(self._live.values()):
            self.end(job, now_s, failed)

    def _record(
        self,
        number: int,
        program: Program,
        arrived_s: float,
        finished_s: float,
        output_tokens: int,
        failed: str,
    ) -> None:
        self._sink.job(
            JobRecord(
                job=number,
                app=program.app,
                tenant=program.tenant,
                arrived_s=arrived_s,
                finished_s=finished_s,
                num_calls=len(program.calls),
                output_tokens=output_tokens,
                failed=failed,
            )
        )
        self._when_ended()
