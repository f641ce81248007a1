"""A shell for the core without a clock, threads or engines: it plays all of them in virtual time.

Every command is carried out at once, and a command that no shell could carry out (a second answer
for a waiter, a start on an engine that is gone) fails the test. Engines either obey a *behaviour*,
a function from the started request to an outcome, or, without one, say only what the test says.
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from parrot_backend.core.commands import (
    AbortRequest,
    AnswerWaiter,
    CloseEngine,
    Command,
    FillPrefix,
    FollowInstance,
    ReleasePrefixes,
    ResetStream,
    RetainPrefix,
    SetTimer,
    StageRequest,
    StartRequest,
    StreamText,
    UpdateRequest,
)
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria
from parrot_backend.core.events import (
    CancelRequested,
    EngineInfo,
    EngineJoined,
    EngineLost,
    EngineReported,
    Event,
    NodeSpec,
    RequestFailed,
    RequestFinished,
    RequestUsage,
    SessionClosed,
    Timer,
    TimerFired,
    TokensGenerated,
    ValueRequested,
    VariableSet,
    WaitersLeft,
    Wanted,
)
from parrot_backend.core.ids import (
    AttemptId,
    EngineId,
    NodeId,
    SessionId,
    VariableId,
    WaiterId,
    name_of,
)
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.variable import Variable
from tests.helpers.builders import SESSION, make_submission, var

_CommandType = TypeVar("_CommandType", bound=Command)


@dataclass(frozen=True, slots=True)
class Reply:
    """The engine generates a text in pieces and finishes."""

    text: str
    delay_s: float = 1.0
    num_pieces: int = 2


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine says something, perhaps, and then that the request failed."""

    code: str = "engine_failed"
    is_retryable: bool = False
    delay_s: float = 1.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Death:
    """The engine dies of the request."""

    delay_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing is heard of the request again."""


Outcome = Reply | Refusal | Death | Silence
Behaviour = Callable[[StartRequest], Outcome]
FillBehaviour = Callable[[FillPrefix], Outcome]
#: Tells whether an engine goes on with a staged request when its time comes.
SpliceBehaviour = Callable[[StageRequest], bool]


def reply_text(parts: Iterable[PromptPart]) -> str:
    """Return the text an engine makes of a prompt: equal prompts give equal texts."""
    prompt = "|".join(f"{part.kind.value}:{part.text}" for part in parts)
    return f"<{zlib.crc32(prompt.encode()):08x}>"


def reply_to_prompt(start: StartRequest) -> Outcome:
    """Behave well: reply after one second."""
    return Reply(reply_text(start.parts))


@dataclass(slots=True)
class EngineLog:
    """What the shell knows of one attempt.

    Attributes:
        start: The command that began it, or would have if it had not been staged.
        said: The texts the engine sent so far.
        is_spliced: The engine began it by itself.
    """

    start: StartRequest
    said: list[str] = field(default_factory=list)
    is_spliced: bool = False


Observer = Callable[["CoreDriver", Event, list[Command]], None]


class CoreDriver:
    """One coordinator and the world around it.

    Attributes:
        history: Every accepted event, its time and what it commanded; another coordinator that is
            fed with the same events must command the same.
        running: Attempts that the engines work on, in order of start.
        ended: Attempts that finished, failed or were lost.
        aborted: Attempts that the core aborted.
        answers: The answer of each waiter that got one.
        streamed: Text that each streaming waiter holds now.
        num_resets: How often each stream was voided.
        timers: Pending timers and when they are due.
        fills: Fills that the engines work on, in order of start.
        kept: Prefixes that each live engine was told to keep, and not to let go since.
        staged: Requests that engines hold ready, in order of staging.
    """

    def __init__(
        self,
        *engines: EngineInfo,
        config: CoreConfig | None = None,
        behaviour: Behaviour | None = None,
        fill_behaviour: FillBehaviour | None = None,
        splice_behaviour: SpliceBehaviour = lambda _stage: True,
        observers: Iterable[Observer] = (),
    ) -> None:
        self.config = config or CoreConfig()
        self.coordinator = Coordinator(self.config)
        self.now_s = 0.0
        self.history: list[tuple[Event, float, list[Command]]] = []
        self.running: dict[AttemptId, EngineLog] = {}
        self.ended: list[AttemptId] = []
        self.aborted: list[AttemptId] = []
        self.answers: dict[WaiterId, AnswerWaiter] = {}
        self.followed: dict[WaiterId, tuple[WaiterId, VariableId]] = {}
        self.streamed: dict[WaiterId, str] = {}
        self.num_resets: dict[WaiterId, int] = {}
        self.closed_engines: list[EngineId] = []
        self.live_engines: dict[EngineId, EngineInfo] = {}
        self.timers: dict[Timer, float] = {}
        self.fills: dict[AttemptId, FillPrefix] = {}
        self.kept: dict[EngineId, set[bytes]] = {}
        self.staged: dict[AttemptId, StageRequest] = {}
        self._splice_behaviour = splice_behaviour
        self._behaviour = behaviour
        self._fill_behaviour = fill_behaviour
        self._observers = list(observers)
        self._plan: list[tuple[float, int, Event]] = []
        self._sequence = itertools.count()
        self._seen_attempts: set[AttemptId] = set()
        for engine in engines:
            self.join(engine)

    # --- events ----------------------------------------------------------------------------

    def send(self, event: Event, after_s: float = 0.0) -> list[Command]:
        """Let some time pass, hand the event to the core and carry out what it commands."""
        self.now_s += after_s
        commands = list(self.coordinator.handle(event, self.now_s))
        self.history.append((event, self.now_s, commands))
        self._note(event)
        for command in commands:
            self._carry_out(command)
        for observer in self._observers:
            observer(self, event, commands)
        return commands

    def submit(
        self,
        *nodes: NodeSpec,
        session: SessionId = SESSION,
        is_new: bool = True,
        wanted: Iterable[Wanted] = (),
        variables: dict[str, str | None] | None = None,
        tenant: str = "default",
        close: bool = False,
        quiet: bool = False,
    ) -> list[Command]:
        """Submit a graph."""
        return self.send(
            make_submission(
                *nodes,
                session=session,
                is_new=is_new,
                wanted=wanted,
                variables=variables,
                tenant=tenant,
                close=close,
                quiet=quiet,
            )
        )

    def set(self, name: str, value: str, session: SessionId = SESSION) -> list[Command]:
        """Set an external variable."""
        return self.send(VariableSet(var(name, session), value))

    def get(
        self,
        name: str,
        waiter: str,
        criteria: Criteria | None = None,
        *,
        stream: bool = False,
        session: SessionId = SESSION,
    ) -> list[Command]:
        """Wait for a variable."""
        return self.send(ValueRequested(WaiterId(waiter), var(name, session), criteria, stream))

    def leave(self, *waiters: str, cancel: bool = False) -> list[Command]:
        """Stop waiting."""
        return self.send(WaitersLeft(tuple(map(WaiterId, waiters)), cancel))

    def cancel(self, *variables: str, session: SessionId = SESSION) -> list[Command]:
        """Cancel variables, or all of the session if none is named."""
        ids = tuple(var(name, session) for name in variables)
        return self.send(CancelRequested(session, ids or None))

    def close(self, session: SessionId = SESSION) -> list[Command]:
        """End a session."""
        return self.send(SessionClosed(session))

    def join(self, engine: EngineInfo) -> list[Command]:
        """Let an engine join."""
        return self.send(EngineJoined(engine))

    def lose(self, name: str, reason: str = "it died") -> list[Command]:
        """Lose an engine."""
        return self.send(EngineLost(EngineId(name), reason))

    # --- what engines say --------------------------------------------------------------------

    def attempt(self, output: str, session: SessionId = SESSION) -> AttemptId:
        """Return the running attempt that makes a variable."""
        wanted = var(output, session)
        for attempt in self.running:
            if self.request_of(attempt).output == wanted:
                return attempt
        raise AssertionError(f"nothing runs that makes {wanted}")

    def say(
        self, output: str, text: str, num_tokens: int = 1, session: SessionId = SESSION
    ) -> list[Command]:
        """Let the engine send a piece of text of a variable."""
        return self.send(TokensGenerated(self.attempt(output, session), text, num_tokens))

    def finish(
        self,
        output: str,
        text: str | None = None,
        *,
        token_ids: tuple[int, ...] | None = None,
        usage: RequestUsage | None = None,
        splices: bool = False,
        session: SessionId = SESSION,
    ) -> list[Command]:
        """Let the engine finish a variable; without a text, with what its prompt gives.

        With ``splices`` it goes on by itself with what is staged after that.
        """
        attempt = self.attempt(output, session)
        value = reply_text(self.running[attempt].start.parts) if text is None else text
        spliced = self.staged_after(attempt) if splices else ()
        return self.send(
            finished(attempt, value, token_ids=token_ids, usage=usage, spliced=spliced)
        )

    def fail(
        self,
        output: str,
        code: str = "engine_failed",
        *,
        is_retryable: bool = False,
        session: SessionId = SESSION,
    ) -> list[Command]:
        """Let the engine fail a variable."""
        attempt = self.attempt(output, session)
        return self.send(RequestFailed(attempt, code, f"{code} happened", is_retryable))

    def end_fill(self, consumer: str, session: SessionId = SESSION) -> list[Command]:
        """Let the engine finish the fill of the request that will make a variable."""
        return self.send(finished(self.fill_of(consumer, session), ""))

    def fail_fill(self, consumer: str, session: SessionId = SESSION) -> list[Command]:
        """Let the engine fail the fill of the request that will make a variable."""
        attempt = self.fill_of(consumer, session)
        return self.send(RequestFailed(attempt, "engine_failed", "it did", is_retryable=True))

    def report(
        self,
        name: str = "e0",
        *,
        held: Iterable[PrefixBoundary] = (),
        lost: Iterable[bytes] = (),
        is_snapshot: bool = False,
    ) -> list[Command]:
        """Let an engine say what its cache holds."""
        return self.send(EngineReported(EngineId(name), tuple(held), tuple(lost), is_snapshot))

    # --- time ------------------------------------------------------------------------------

    def run(self, max_events: int = 100_000) -> None:
        """Play until the engines have nothing more to say, firing the timers due meanwhile."""
        for _ in range(max_events):
            if not self._plan:
                return
            self._step(self._plan[0][0])
        raise AssertionError(f"still going after {max_events} events")

    def run_until(self, until_s: float) -> None:
        """Play everything that happens up to a time, timers included."""
        while min(self._next_event_s(), self._next_timer_s()) <= until_s:
            self._step(until_s)
        self.now_s = max(self.now_s, until_s)

    def _next_event_s(self) -> float:
        return self._plan[0][0] if self._plan else float("inf")

    def _next_timer_s(self) -> float:
        return min(self.timers.values(), default=float("inf"))

    def _step(self, until_s: float) -> None:
        if self.timers and self._next_timer_s() < min(self._next_event_s(), until_s + 1e-9):
            timer = min(self.timers, key=lambda t: self.timers[t])
            self.now_s = max(self.now_s, self.timers.pop(timer))
            self.send(TimerFired(timer))
            return
        at_s, _, event = heapq.heappop(self._plan)
        self.now_s = max(self.now_s, at_s)
        if isinstance(event, RequestFinished):
            staged = self.staged_after(event.attempt)
            spliced = tuple(a for a in staged if self._splice_behaviour(self.staged[a]))
            event = replace(event, spliced=spliced)
        if self._is_still_said(event):
            self.send(event)

    def plan(self, event: Event, delay_s: float) -> None:
        """Let an event happen later."""
        heapq.heappush(self._plan, (self.now_s + delay_s, next(self._sequence), event))

    # --- reading ---------------------------------------------------------------------------

    def variable(self, name: str, session: SessionId = SESSION) -> Variable:
        """Return a variable of the core."""
        return self.coordinator.variable(var(name, session))

    def request(self, output: str, session: SessionId = SESSION) -> Request:
        """Return the request that makes a variable."""
        graph = self.coordinator.session(session).graph
        producer = graph.variables[var(output, session)].producer
        assert producer is not None
        node = graph.nodes[producer]
        assert isinstance(node, Request)
        return node

    def request_of(self, attempt: AttemptId) -> Request:
        """Return the request of a running attempt, a fill or a staged attempt."""
        early = self.fills.get(attempt) or self.staged.get(attempt)
        start = early or self.running[attempt].start
        of_node = start.node if isinstance(start, StartRequest) else early_node(attempt)
        node = self.coordinator.session(start.session).graph.nodes[of_node]
        assert isinstance(node, Request)
        return node

    def fill_of(self, consumer: str, session: SessionId = SESSION) -> AttemptId:
        """Return the fill that runs for the request that will make a variable."""
        wanted = self.request(consumer, session).id
        for attempt in self.fills:
            if early_node(attempt) == wanted:
                return attempt
        raise AssertionError(f"nothing is filled for {wanted}")

    def staged_after(self, attempt: AttemptId) -> tuple[AttemptId, ...]:
        """Return the staged attempts that go on where an attempt ends."""
        return tuple(a for a, stage in self.staged.items() if stage.after == attempt)

    @property
    def staged_outputs(self) -> list[str]:
        """Names of the variables whose requests are staged, in order of staging."""
        return [name_of(self.request_of(attempt).output) for attempt in self.staged]

    @property
    def filled_outputs(self) -> list[str]:
        """Names of the variables whose prompts are being filled, in order of start."""
        return [name_of(self.request_of(attempt).output) for attempt in self.fills]

    @property
    def running_outputs(self) -> list[str]:
        """Names of the variables that are being made, in order of start."""
        return [name_of(self.request_of(attempt).output) for attempt in self.running]

    def answer(self, waiter: str) -> AnswerWaiter:
        """Return the answer that a waiter got."""
        return self.answers[WaiterId(waiter)]

    # --- carrying out ------------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        if isinstance(event, EngineJoined):
            self.live_engines[event.info.engine] = event.info
            self.kept[event.info.engine] = set()
        elif isinstance(event, EngineLost):
            self._drop_engine(event.engine)
        elif isinstance(event, TokensGenerated) and event.attempt in self.running:
            self.running[event.attempt].said.append(event.text)
        elif isinstance(event, RequestFinished | RequestFailed) and event.attempt in self.running:
            del self.running[event.attempt]
            self.ended.append(event.attempt)
            if isinstance(event, RequestFinished):
                self._splice(event)
        elif isinstance(event, RequestFinished | RequestFailed) and event.attempt in self.fills:
            del self.fills[event.attempt]
            self.ended.append(event.attempt)

    def _drop_engine(self, engine: EngineId) -> None:
        self.live_engines.pop(engine, None)
        self.kept.pop(engine, None)
        for attempt in [a for a, log in self.running.items() if log.start.engine == engine]:
            del self.running[attempt]
            self.ended.append(attempt)
        for attempt in [a for a, fill in self.fills.items() if fill.engine == engine]:
            del self.fills[attempt]
            self.ended.append(attempt)
        for attempt in [a for a, stage in self.staged.items() if stage.engine == engine]:
            del self.staged[attempt]
            self.ended.append(attempt)

    def _splice(self, event: RequestFinished) -> None:
        """Let the engine go on by itself with staged requests."""
        for attempt in event.spliced:
            stage = self.staged.pop(attempt, None)
            if stage is None:
                continue  # it was taken back while the engine went on
            assert stage.after == event.attempt
            start = _as_started(stage, event)
            self.running[attempt] = EngineLog(start, is_spliced=True)
            if self._behaviour is not None:
                self._foretell(start, self._behaviour(start))

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartRequest():
                self._start(command)
            case UpdateRequest(engine, attempt):
                assert self.live_engines[engine].takes_updates
                assert self.running[attempt].start.engine == engine
            case FillPrefix():
                self._fill(command)
            case StageRequest():
                self._stage(command)
            case RetainPrefix(engine, key, of_attempt):
                assert self.live_engines[engine].keeps_prefixes
                assert key not in self.kept[engine], "it is kept already"
                assert of_attempt is None or of_attempt in self.ended
                self.kept[engine].add(key)
            case ReleasePrefixes(engine, keys):
                assert keys
                assert self.kept[engine].issuperset(keys), "it was not kept"
                self.kept[engine].difference_update(keys)
            case AbortRequest(engine, attempt, is_early):
                assert (self._stop_early if is_early else self._stop)(attempt) == engine
                self.aborted.append(attempt)
            case AnswerWaiter(waiter):
                assert waiter not in self.answers, f"{waiter} is answered twice"
                self.answers[waiter] = command
            case FollowInstance(waiter, follower, variable):
                assert waiter not in self.answers, f"{waiter} follows after its answer"
                assert follower not in self.followed
                self.followed[follower] = (waiter, variable)
            case StreamText(waiter, text):
                assert waiter not in self.answers, f"{waiter} gets text after its answer"
                self.streamed[waiter] = self.streamed.get(waiter, "") + text
            case ResetStream(waiter):
                assert waiter not in self.answers, f"{waiter} is reset after its answer"
                self.streamed[waiter] = ""
                self.num_resets[waiter] = self.num_resets.get(waiter, 0) + 1
            case CloseEngine(engine):
                self.closed_engines.append(engine)
                self._drop_engine(engine)
            case SetTimer(timer, at_s):
                assert at_s >= self.now_s, f"{timer} is set in the past"
                self.timers[timer] = at_s

    def _start(self, start: StartRequest) -> None:
        self._begin(start)
        self.running[start.attempt] = EngineLog(start)
        if self._behaviour is not None:
            self._foretell(start, self._behaviour(start))

    def _fill(self, fill: FillPrefix) -> None:
        self._begin(fill)
        assert self.live_engines[fill.engine].keeps_prefixes
        self.fills[fill.attempt] = fill
        if self._fill_behaviour is not None:
            self._foretell(fill, self._fill_behaviour(fill))

    def _stage(self, stage: StageRequest) -> None:
        self._note_attempt(stage)
        assert self.live_engines[stage.engine].splices
        assert self.running[stage.after].start.engine == stage.engine
        self.staged[stage.attempt] = stage

    def _stop(self, attempt: AttemptId) -> EngineId:
        return self.running.pop(attempt).start.engine

    def _stop_early(self, attempt: AttemptId) -> EngineId:
        """Stop a fill or a staged request; the engine may have gone on with it just now."""
        early = self.fills.pop(attempt, None) or self.staged.pop(attempt, None)
        if early is not None:
            return early.engine
        assert self.running[attempt].is_spliced
        return self._stop(attempt)

    def _note_attempt(self, start: StartRequest | FillPrefix | StageRequest) -> None:
        assert start.engine in self.live_engines, f"{start.attempt} starts on a dead engine"
        assert start.attempt not in self._seen_attempts, f"{start.attempt} starts twice"
        self._seen_attempts.add(start.attempt)

    def _begin(self, start: StartRequest | FillPrefix) -> None:
        self._note_attempt(start)
        known = {boundary.hash for boundary in start.prefixes}
        if isinstance(start, StartRequest):
            known |= {beginning.boundary.hash for beginning in start.beginnings}
        assert known.issuperset(start.retain)
        assert not start.retain or self.live_engines[start.engine].keeps_prefixes
        self.kept[start.engine].update(start.retain)

    def _is_still_said(self, event: Event) -> bool:
        """Tell whether an engine still says a foretold event: it was not aborted and lives."""
        if isinstance(event, TokensGenerated | RequestFinished | RequestFailed):
            return event.attempt in self.running or event.attempt in self.fills
        return not isinstance(event, EngineLost) or event.engine in self.live_engines

    def _foretell(self, start: StartRequest | FillPrefix, outcome: Outcome) -> None:
        match outcome:
            case Reply(text, delay_s, num_pieces):
                for piece in _cut(text, num_pieces):
                    self.plan(TokensGenerated(start.attempt, piece, 1), delay_s / 2)
                self.plan(finished(start.attempt, text), delay_s)
            case Refusal(code, is_retryable, delay_s, said):
                if said:
                    self.plan(TokensGenerated(start.attempt, said, 1), delay_s / 2)
                failed = RequestFailed(start.attempt, code, f"{code} happened", is_retryable)
                self.plan(failed, delay_s)
            case Death(delay_s):
                self.plan(EngineLost(start.engine, "it died"), delay_s)
            case Silence():
                pass


def finished(
    attempt: AttemptId,
    text: str,
    *,
    token_ids: tuple[int, ...] | None = None,
    usage: RequestUsage | None = None,
    spliced: tuple[AttemptId, ...] = (),
) -> RequestFinished:
    """Return the event that an attempt ended well."""
    return RequestFinished(attempt, text, token_ids, "stop", usage or RequestUsage(10, 2), spliced)


def of_type(commands: Iterable[Command], kind: type[_CommandType]) -> list[_CommandType]:
    """Return the commands of one type, in order."""
    return [command for command in commands if isinstance(command, kind)]


def started(commands: Iterable[Command]) -> list[str]:
    """Return the attempts that commands start, without the session, in order."""
    return [name_of_attempt(start.attempt) for start in of_type(commands, StartRequest)]


def name_of_attempt(attempt: AttemptId) -> str:
    """Return an attempt id without its session: ``call#step~try``."""
    return attempt.partition(".")[2]


def early_node(attempt: AttemptId) -> NodeId:
    """Return the request that a fill or a staged attempt is for."""
    node, _, number = attempt.rpartition("~")
    assert number.startswith(("fill", "s")), f"{attempt} is neither a fill nor staged"
    return NodeId(node)


def _as_started(stage: StageRequest, event: RequestFinished) -> StartRequest:
    """Return what would have begun a staged request, had it taken the usual way."""
    output = PromptPart(PartKind.VALUE, event.text, event.token_ids)
    return StartRequest(
        engine=stage.engine,
        attempt=stage.attempt,
        node=early_node(stage.attempt),
        session=stage.session,
        tenant=stage.tenant,
        model=stage.model,
        parts=(*stage.parts[: stage.gap], output, *stage.parts[stage.gap + 1 :]),
        sampling=stage.sampling,
        objective=stage.objective,
        remaining=stage.remaining,
        prefixes=(),
        retain=(),
        reason="",
        quiet=stage.quiet,
    )


def _cut(text: str, num_pieces: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, num_pieces)))
    return [text[i : i + size] for i in range(0, len(text), size)]
