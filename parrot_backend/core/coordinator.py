"""The coordinator: every event of the server goes in here, and every decision comes out.

``handle`` is the whole interface. It first checks an event, and raises before anything changed;
then it changes the state and collects commands; at the end it places what became placeable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from parrot_backend.core.account import Ending
from parrot_backend.core.ages import give_places, renew_place
from parrot_backend.core.bodies import calls_of
from parrot_backend.core.commands import Command, SetTimer
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import (
    CancelRequested,
    EngineJoined,
    EngineLost,
    EngineReported,
    EngineTimer,
    Event,
    GraphSubmitted,
    NoEngineTimer,
    RequestFailed,
    RequestFinished,
    RetryTimer,
    SessionClosed,
    SessionTimer,
    Timer,
    TimerFired,
    TokensGenerated,
    ValueRequested,
    VariableSet,
    WaitersLeft,
)
from parrot_backend.core.fleet import Fleet
from parrot_backend.core.graph import GraphDelta
from parrot_backend.core.ids import EngineId, SessionId, VariableId, name_of, variable_id
from parrot_backend.core.nodes import Node, NodeState, Request
from parrot_backend.core.optimiser import Optimiser
from parrot_backend.core.progress import Progress
from parrot_backend.core.pruning import unneeded
from parrot_backend.core.reuse import Reuse
from parrot_backend.core.session import Session
from parrot_backend.core.session_book import SessionBook
from parrot_backend.core.tool_support import check_tools
from parrot_backend.core.variable import Variable
from parrot_backend.errors import CapacityError, RequestError


class Coordinator:
    """State of the whole server, changed by events alone."""

    def __init__(self, config: CoreConfig) -> None:
        self._config = config
        self._commands: list[Command] = []
        self._book = SessionBook()
        self._fleet = Fleet(config, self._emit)
        self._progress = Progress(config, self._book, self._fleet, self._emit)
        self._reuse = Reuse(self._book, self._fleet, self._progress)

    # --- reading ---------------------------------------------------------------------------

    @property
    def sessions(self) -> SessionBook:
        """All sessions, to be read only."""
        return self._book

    @property
    def engines(self) -> Mapping[EngineId, EngineState]:
        """Live engines with their accounts, to be read only."""
        return MappingProxyType(self._fleet.scheduler.engines)

    @property
    def num_waiting(self) -> int:
        """Ready requests that no engine has taken yet."""
        return self._fleet.num_waiting + self._progress.optimiser.num_following

    @property
    def num_unfinished_calls(self) -> int:
        """Requests that have not ended."""
        return self._progress.account.num_unfinished

    @property
    def num_begun_calls(self) -> int:
        """Requests that were taken in so far; all but the unfinished have ended."""
        return self._progress.account.num_begun

    @property
    def endings(self) -> Sequence[Ending]:
        """The requests that ended with the last event, in order."""
        return self._progress.account.endings

    @property
    def num_discovery_chars(self) -> int:
        """Text that is remembered to find it again in prompts."""
        return self._progress.annotator.num_chars

    @property
    def optimiser(self) -> Optimiser:
        """What the optimiser has done, to be read only."""
        return self._progress.optimiser

    @property
    def num_active_calls(self) -> int:
        """Requests that go on without anybody's doing: not those that wait for a variable."""
        return self._fleet.num_active

    def session(self, session_id: SessionId, tenant: str | None = None) -> Session:
        """Return a session, to be read only; with a tenant, only one of its own.

        Raises:
            RequestError: ``unknown_session``.
        """
        return self._book.find(session_id, tenant)

    def variable(self, variable: VariableId) -> Variable:
        """Return a variable, to be read only.

        Raises:
            RequestError: ``unknown_session`` or ``unknown_variable``.
        """
        return self._book.find_variable(variable)[1]

    def session_of_key(self, tenant: str, key: str) -> SessionId | None:
        """Return the session that a submit with this idempotency key went to."""
        return self._book.session_of_key(tenant, key)

    # --- events ----------------------------------------------------------------------------

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take in one event and return what is to be done, in order.

        Args:
            event: What happened.
            now_s: The time on the shell's clock; it must not run backwards.

        Raises:
            ParrotError: The event was rejected; nothing has changed.
        """
        self._commands = []
        self._progress.account.endings = []
        match event:
            case TokensGenerated():
                self._progress.stream(event, now_s)
                return self._commands  # nothing became placeable
            case RequestFinished() | RequestFailed() if self._ends_fill(event):
                pass
            case RequestFinished():
                self._progress.finish(event, now_s)
            case RequestFailed():
                self._progress.fail_attempt(event, now_s)
            case GraphSubmitted():
                self._submit(event, now_s)
            case ValueRequested():
                self._request_value(event, now_s)
            case VariableSet():
                self._set(event, now_s)
            case WaitersLeft():
                self._leave(event, now_s)
            case CancelRequested():
                self._cancel(event, now_s)
            case SessionClosed():
                self._end_session(self._book.find(event.session), "the session was closed", now_s)
            case EngineJoined():
                self._fleet.join(event.info, now_s)
            case EngineReported():
                self._fleet.report(event, now_s)
            case EngineLost():
                self._progress.lose_engine(event.engine, event.reason, now_s)
            case TimerFired():
                self._fire(event.timer, now_s)
            case _:
                assert_never(event)
        self._reuse.carry_on(now_s)
        for request in self._fleet.place(now_s):
            self._progress.look_ahead(request)
        self._fleet.resume_fills()
        return self._commands

    def _ends_fill(self, event: RequestFinished | RequestFailed) -> bool:
        is_complete = isinstance(event, RequestFinished)
        return self._fleet.end_fill(event.attempt, is_complete=is_complete)

    def _emit(self, command: Command) -> None:
        self._commands.append(command)

    def _submit(self, event: GraphSubmitted, now_s: float) -> None:
        earlier = self._book.earlier_submit(event)
        if earlier is not None:
            earlier.touched_s = now_s
            self._want(earlier, event, now_s)
            return
        session = self._book.prepare(event, now_s)
        delta = session.graph.plan(event, self._config.max_nodes_per_session)
        self._check(event, delta)
        self._book.accept(session, event)
        session.touched_s = now_s
        session.is_closed = event.close
        if event.is_new or event.close:
            self._set_session_timer(session)
        renew_place(session, self._book, now_s, self._config.scheduler.max_wait_s)
        lengthened = session.graph.apply(delta, now_s)
        self._progress.take_in(session, delta.nodes, lengthened)
        if event.discovers:
            self._progress.annotate(session, delta.nodes)
        give_places(session, delta.nodes, self._book, now_s)
        self._progress.outlook.begin(session, delta.nodes)
        for wanted in event.wanted:
            if wanted.criteria is not None:
                session.annotate(session.find(wanted.variable), wanted.criteria)
        self._progress.deduce(session)
        propagation = self._progress.propagation(session, now_s)
        if self._config.optimiser.prunes and event.is_new and event.close and event.wanted:
            propagation.prune(self._unneeded(session, event, delta))
        propagation.admit(delta.nodes)
        self._progress.carry_out(session, propagation.effects, now_s)
        self._progress.expect(session, delta.nodes)
        self._want(session, event, now_s)

    def _unneeded(self, session: Session, event: GraphSubmitted, delta: GraphDelta) -> list[Node]:
        """Return new nodes that nothing is made of that is wanted, now or ever."""
        nodes = unneeded(session.graph, delta.nodes, (w.variable for w in event.wanted))
        self._progress.optimiser.num_pruned += sum(isinstance(n, Request) for n in nodes)
        return nodes

    def _check(self, event: GraphSubmitted, delta: GraphDelta) -> None:
        for call in calls_of(event.nodes):
            self._fleet.check_model(call.model)
            engines = self._fleet.scheduler.engines.values()
            check_tools(call.chat, (e.info for e in engines if e.serves(call.model)))
        unfinished, limit = self.num_unfinished_calls, self._config.max_unfinished_calls
        if unfinished + delta.num_requests > limit:
            raise CapacityError(
                "saturated",
                f"{unfinished} calls are unfinished and {delta.num_requests} would be added; at "
                f"most {limit} are taken",
            )

    def _want(self, session: Session, event: GraphSubmitted, now_s: float) -> None:
        """Attach a submit's waiters, by name: a repeat comes with another session id."""
        if not event.quiet or any(wanted.stream for wanted in event.wanted):
            session.end_quiet()
        changed = False
        for wanted in event.wanted:
            own_id = variable_id(session.id, name_of(wanted.variable))
            variable = session.graph.variables[own_id]
            if wanted.criteria is not None:
                changed |= session.annotate(variable, wanted.criteria)
            if wanted.waiter is not None and wanted.instances:
                self._progress.following.begin(
                    session, variable, wanted.waiter, is_streaming=wanted.stream
                )
            if wanted.waiter is not None:
                self._progress.waiters.attach(variable, wanted.waiter, is_streaming=wanted.stream)
        if changed:
            self._progress.deduce(session)

    def _request_value(self, event: ValueRequested, now_s: float) -> None:
        session, variable = self._book.find_variable(event.variable)
        session.touched_s = now_s
        # Who waits without a word wants it all the same, but no less than was said before.
        is_wanted = event.criteria is None and variable.id not in session.annotations
        criteria = Criteria(CriteriaKind.UNSTATED) if is_wanted else event.criteria
        if criteria is not None and session.annotate(variable, criteria):
            self._progress.deduce(session)
        if event.stream:
            session.end_quiet()
        self._progress.waiters.attach(variable, event.waiter, is_streaming=event.stream)

    def _set(self, event: VariableSet, now_s: float) -> None:
        session, variable = self._book.find_variable(event.variable)
        if variable.producer is not None:
            raise RequestError(
                "variable_has_producer", f"variable {variable.name!r} is made by a call"
            )
        if variable.is_settled:
            raise RequestError(
                "variable_already_set", f"variable {variable.name!r} is {variable.state.value}"
            )
        session.graph.check_room(len(event.value))
        session.touched_s = now_s
        propagation = self._progress.propagation(session, now_s)
        propagation.resolve(variable, event.value)
        self._progress.carry_out(session, propagation.effects, now_s)

    def _leave(self, event: WaitersLeft, now_s: float) -> None:
        deserted: dict[Session, dict[VariableId, Variable]] = {}
        for waiter in event.waiters:
            left = self._progress.waiters.detach(waiter)
            if left is None:
                continue
            session, variable = self._book.find_variable(left)
            del variable.waiters[waiter]
            session.touched_s = now_s
            self._progress.following.leave(session, variable, waiter)
            if event.cancel and not variable.waiters:
                deserted.setdefault(session, {})[variable.id] = variable
        # All at once: each deduction, and each look at who else wants it, may cost a whole session.
        for session, variables in deserted.items():
            for gone in variables.values():
                session.withdraw(gone)
            self._progress.deduce(session)
            needed = session.needed_for_wanted(variables.values())
            targets = [v for v in variables.values() if v.id not in needed]
            self._give_up(session, targets, "the client went away", now_s)

    def _cancel(self, event: CancelRequested, now_s: float) -> None:
        session = self._book.find(event.session)
        if event.variables is None:
            targets = list(session.graph.variables.values())
        else:
            targets = [session.find(variable) for variable in event.variables]
        session.touched_s = now_s
        self._give_up(session, targets, "cancelled by the client", now_s)

    def _give_up(
        self, session: Session, targets: list[Variable], message: str, now_s: float
    ) -> None:
        propagation = self._progress.propagation(session, now_s)
        propagation.cancel(targets, session.annotations, message)
        self._progress.carry_out(session, propagation.effects, now_s)

    def _end_session(self, session: Session, message: str, now_s: float) -> None:
        variables = [v for v in session.graph.variables.values() if not v.is_settled]
        if variables:
            propagation = self._progress.propagation(session, now_s)
            for variable in variables:
                if variable.producer is None and not variable.is_settled:
                    propagation.fail(
                        variable, "variable_not_set", f"{message} before {variable.name!r} was set"
                    )
            propagation.cancel(variables, (), message)
            self._progress.carry_out(session, propagation.effects, now_s)
        self._progress.annotator.forget(session)
        self._fleet.foresight.anticipation.forget(session.id)
        self._book.forget(session)

    # --- timers ----------------------------------------------------------------------------

    def _fire(self, timer: Timer, now_s: float) -> None:
        match timer:
            case SessionTimer(session_id):
                self._check_session(session_id, now_s)
            case EngineTimer(engine_id):
                reason = self._fleet.watch(engine_id, now_s)
                if reason is not None:
                    self._progress.lose_engine(engine_id, reason, now_s)
            case NoEngineTimer():
                self._progress.fail_unserved(now_s)
            case RetryTimer(node_id):
                self._fleet.resume(node_id, now_s)
            case _:
                assert_never(timer)

    def _check_session(self, session_id: SessionId, now_s: float) -> None:
        session = self._book.get(session_id)
        if session is None:
            return
        if _is_busy(session):
            session.touched_s = now_s
        if now_s >= session.touched_s + self._ttl_s(session):  # rounded as the timer is
            self._end_session(session, "the session was idle for too long", now_s)
        else:
            self._set_session_timer(session)

    def _set_session_timer(self, session: Session) -> None:
        self._emit(SetTimer(SessionTimer(session.id), session.touched_s + self._ttl_s(session)))

    def _ttl_s(self, session: Session) -> float:
        closed_s = self._config.closed_session_ttl_s
        open_s = self._config.session_ttl_s if session.ttl_s is None else session.ttl_s
        return min(closed_s, open_s) if session.is_closed else open_s


def _is_busy(session: Session) -> bool:
    """Tell whether anything runs or is queued, or somebody waits."""
    at_work = (NodeState.READY, NodeState.RUNNING)
    return any(v.waiters for v in session.graph.variables.values()) or any(
        node.state in at_work for node in session.graph.nodes.values()
    )
