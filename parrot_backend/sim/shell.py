"""The simulated shell: events to the core, and its commands carried out on a simulated clock.

As in the live runtime, ``dispatch`` is the one way to the core: events are handled one at a time
and in order, and what happens while commands are carried out is handled right after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from parrot_backend.core.attempts import prefix_seed
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
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.events import (
    EngineReported,
    EngineTimer,
    Event,
    GraphSubmitted,
    RequestFailed,
    SessionClosed,
    SessionTimer,
    Timer,
    TimerFired,
)
from parrot_backend.core.ids import AttemptId, NodeId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import prefix_chain
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.errors import ParrotError, RequestError
from parrot_backend.sim.attempts import (
    attempt_request,
    call_record,
    fill_end,
    fill_request,
    finish_event,
)
from parrot_backend.sim.engine_seam import Finished, Refused
from parrot_backend.sim.event_loop import EventLoop, Scheduled
from parrot_backend.sim.fleet import EngineFactory, SimFleet
from parrot_backend.sim.jobs import LiveCall
from parrot_backend.sim.plan import made_tokens
from parrot_backend.sim.records import RecordSink
from parrot_backend.sim.spec import EngineSpec
from parrot_backend.sim.texts import output_text

#: Sees each event that the core took in, its time, and what the core asked for.
Observer = Callable[[Event, float, Sequence[Command]], None]


class SimShell:
    """One simulated server.

    Args:
        coordinator: The core.
        loop: The clock.
        specs: Its engines.
        create: Makes them.
        sink: Takes the records of calls.
        observer: Looks on; None for nobody.

    Attributes:
        fleet: The engines.
        answer: Takes the answers; set by whoever plays the clients.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        loop: EventLoop,
        specs: Sequence[EngineSpec],
        create: EngineFactory,
        sink: RecordSink,
        observer: Observer | None,
    ) -> None:
        self._coordinator = coordinator
        self._loop = loop
        self._sink = sink
        self._observer = observer
        self._pending: deque[Event] = deque()
        self._is_dispatching = False
        self._timers: dict[Timer, Scheduled] = {}
        self._calls: dict[NodeId, LiveCall] = {}
        self.fleet = SimFleet(specs, create, loop, self)
        self.answer: Callable[[AnswerWaiter], None] = _nobody

    # --- events ----------------------------------------------------------------------------

    def submit(self, event: GraphSubmitted, calls: Sequence[LiveCall]) -> None:
        """Hand over what a client sends.

        Args:
            event: The submit.
            calls: Its calls.

        Raises:
            ParrotError: The core rejected it; nothing has changed.
        """
        for call in calls:
            self._calls[call.node] = call
            call.job.nodes.append(call.node)
        try:
            self.dispatch(event)
        except BaseException:
            self.forget([call.node for call in calls])
            raise

    def forget(self, nodes: Sequence[NodeId]) -> None:
        """Forget calls that nobody waits for any more."""
        for node in nodes:
            self._calls.pop(node, None)

    def dispatch(self, event: Event) -> None:
        """Tell the core of an event and carry out what it asks for.

        Raises:
            ParrotError: The core rejected the event; nothing has changed.
        """
        if self._is_dispatching:
            self._pending.append(event)
            return
        self._is_dispatching = True
        try:
            self._handle(event)
            while self._pending:
                self._handle_pending(self._pending.popleft())
        finally:
            self._is_dispatching = False
        self.fleet.settle()

    def _handle_pending(self, event: Event) -> None:
        try:
            self._handle(event)
        except ParrotError as exc:
            # Not what was dispatched: whoever did that must not take it for a rejection.
            raise RuntimeError(f"the core rejected {event}") from exc

    def _handle(self, event: Event) -> None:
        now_s = self._loop.now_s
        try:
            commands = self._coordinator.handle(event, now_s)
        except RequestError as exc:
            if exc.code == "unknown_session" and not isinstance(event, GraphSubmitted):
                return  # it has ended by itself meanwhile
            raise
        if self._observer is not None:
            self._observer(event, now_s, commands)
        if isinstance(event, SessionClosed):
            self._drop_timer(SessionTimer(event.session))
        for command in commands:
            self._carry_out(command)

    # --- engines ---------------------------------------------------------------------------

    def call_finished(self, engine: int, call: LiveCall | None, event: Finished) -> None:
        """A call, or a fill (None), has run to its end."""
        if call is None:
            self.dispatch(fill_end(event))
            return
        spec, job = call.spec, call.job
        tokens = made_tokens(spec)
        text = output_text(job.number, spec.name, tokens)
        if call.position in job.plan.continued:
            self._name_continuation(engine, call, event.attempt, text)
        self._sink.call(call_record(engine, call, event, tokens))
        self.dispatch(finish_event(call, event, text))

    def call_refused(self, call: LiveCall | None, event: Refused) -> None:
        """An attempt can never run on its engine; perhaps on another."""
        self.dispatch(
            RequestFailed(event.attempt, "prompt_too_long", event.message, is_retryable=True)
        )

    def _name_continuation(
        self, engine: int, call: LiveCall, attempt: AttemptId, text: str
    ) -> None:
        """Let prompts that begin with a call's prompt and output find them on its engine."""
        session = self._coordinator.sessions.get(call.job.session.id)
        request = None if session is None else session.graph.nodes[call.node]
        if not isinstance(request, Request):
            return  # the session ended at this very instant
        parts = (*request.parts, PromptPart(PartKind.VALUE, text))
        self.fleet.extend(engine, attempt, prefix_chain(prefix_seed(request), parts, 1.0)[-1].hash)

    # --- commands --------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartRequest():
                self._start(command)
            case AnswerWaiter():
                self.answer(command)
            case UpdateRequest(engine, attempt, objective, remaining):
                self.fleet.update(engine, attempt, objective, remaining)
            case FillPrefix():
                self.fleet.start(command.engine, fill_request(command), None)
            case RetainPrefix(engine, key, source):
                self.fleet.retain(engine, key, source)
            case ReleasePrefixes(engine, keys):
                self.fleet.release(engine, keys)
            case AbortRequest(engine, attempt):
                self.fleet.abort(engine, attempt)
            case CloseEngine(engine):
                self.fleet.give_up(engine)
            case SetTimer(timer, at_s):
                self._set_timer(timer, at_s)
            case StageRequest():
                # A wish: of a call that its engine does not go on with, nothing more is heard.
                # Programs have one output per call, so there is nothing to go on with.
                pass
            case StreamText() | ResetStream() | FollowInstance():
                pass  # simulated clients wait for whole values
            case _:
                assert_never(command)

    def _start(self, command: StartRequest) -> None:
        call = self._calls[command.node]
        if call.ready_s is None:
            node = self._coordinator.session(command.session).graph.nodes[command.node]
            call.ready_s = node.ready_s
        call.begin(command, self._loop.now_s)
        self.fleet.start(command.engine, attempt_request(command, made_tokens(call.spec)), call)

    # --- timers ----------------------------------------------------------------------------

    def _set_timer(self, timer: Timer, at_s: float) -> None:
        self._drop_timer(timer)
        if at_s < float("inf"):
            self._timers[timer] = self._loop.at(at_s, self._fire, timer)

    def _drop_timer(self, timer: Timer) -> None:
        entry = self._timers.pop(timer, None)
        if entry is not None:
            self._loop.cancel(entry)

    def _fire(self, timer: Timer) -> None:
        del self._timers[timer]
        if isinstance(timer, EngineTimer) and self.fleet.is_alive(timer.engine):
            # Live engines say now and then that they work; here it is enough to say it in time.
            self.dispatch(EngineReported(timer.engine))
        self.dispatch(TimerFired(timer))


def _nobody(answer: AnswerWaiter) -> None:
    raise AssertionError(f"nobody waits for {answer.variable}")
