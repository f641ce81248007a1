"""The coordinator: every event of the server goes in here, and every decision comes out.

``handle`` is the whole interface. It first checks an event, and raises before anything changed;
then it changes the state and collects commands; at the end it places what became placeable.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import assert_never

from parrot_backend.core.commands import (
    AbortRequest,
    AnswerWaiter,
    CloseEngine,
    Command,
    ResetStream,
    SetTimer,
    StartRequest,
    StreamText,
)
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.deduction import deduce_objectives
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import (
    CancelRequested,
    EngineJoined,
    EngineLost,
    EngineTimer,
    Event,
    GraphSubmitted,
    NoEngineTimer,
    RequestFailed,
    RequestFinished,
    SessionClosed,
    SessionTimer,
    TimerFired,
    TokensGenerated,
    ValueRequested,
    VariableSet,
    WaiterLeft,
)
from parrot_backend.core.graph import GraphDelta
from parrot_backend.core.ids import AttemptId, EngineId, SessionId, VariableId, WaiterId, variable_id
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import prefix_chain
from parrot_backend.core.propagation import Effects, Propagation
from parrot_backend.core.scheduling.scheduler import Scheduler
from parrot_backend.core.session import Session
from parrot_backend.core.session_book import SessionBook
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.errors import CapacityError, RequestError

#: Weight of one finished request in the learnt number of tokens per character.
_LENGTH_LEARNING_RATE = 0.1


class Coordinator:
    """State of the whole server, changed by events alone."""

    def __init__(self, config: CoreConfig) -> None:
        self._config = config
        self._book = SessionBook()
        self._scheduler = Scheduler(config.scheduler, config.prefix_index)
        self._waiting_for: dict[WaiterId, VariableId] = {}
        self._running: dict[AttemptId, Request] = {}
        self._known_models: dict[str, None] = {}
        self._num_requests = 0
        self._num_unfinished = 0
        self._tokens_per_char = config.tokens_per_char
        self._commands: list[Command] = []

    # --- reading ---------------------------------------------------------------------------

    @property
    def sessions(self) -> SessionBook:
        """All sessions, to be read only."""
        return self._book

    @property
    def engines(self) -> Mapping[EngineId, EngineState]:
        """Live engines with their accounts, to be read only."""
        return MappingProxyType(self._scheduler.engines)

    @property
    def num_waiting(self) -> int:
        """Ready requests that no engine has taken yet."""
        return len(self._scheduler.queue)

    @property
    def num_unfinished_calls(self) -> int:
        """Requests that have not ended."""
        return self._num_unfinished

    def session(self, session_id: SessionId) -> Session:
        """Return a session, to be read only.

        Raises:
            RequestError: ``unknown_session``.
        """
        return self._book.find(session_id)

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
        match event:
            case GraphSubmitted():
                self._submit(event, now_s)
            case VariableSet():
                self._set(event, now_s)
            case ValueRequested():
                self._request_value(event, now_s)
            case WaiterLeft():
                self._leave(event, now_s)
            case CancelRequested():
                self._cancel(event, now_s)
            case SessionClosed():
                self._end_session(self._book.find(event.session), "the session was closed", now_s)
            case EngineJoined():
                self._join(event, now_s)
            case EngineLost():
                self._lose(event.engine, event.reason, now_s)
            case TokensGenerated():
                self._stream(event, now_s)
                return self._commands
            case RequestFinished():
                self._finish(event, now_s)
            case RequestFailed():
                self._fail_attempt(event, now_s)
            case TimerFired():
                self._fire(event, now_s)
            case _:
                assert_never(event)
        self._place(now_s)
        return self._commands

    def _submit(self, event: GraphSubmitted, now_s: float) -> None:
        earlier = self._book.earlier_submit(event)
        if earlier is not None:
            self._want(earlier, event, now_s)
            return
        session = self._book.prepare(event, now_s)
        delta = session.graph.plan(event, self._config.max_nodes_per_session)
        self._check_models(delta)
        self._check_capacity(delta)
        self._book.accept(session, event)
        session.is_closed = event.close
        if event.is_new:
            self._set_session_timer(session, now_s)
        session.graph.apply(delta, now_s)
        for node in delta.nodes:
            if isinstance(node, Request):
                node.order, node.session_order = self._num_requests, session.order
                self._num_requests += 1
                self._num_unfinished += 1
        for wanted in event.wanted:
            session.annotate(wanted.variable, wanted.criteria)
        self._deduce(session)
        propagation = Propagation(session.graph, now_s)
        propagation.admit(delta.nodes)
        self._carry_out(session, propagation.effects, now_s)
        self._want(session, event, now_s)

    def _check_models(self, delta: GraphDelta) -> None:
        for node in delta.nodes:
            if not isinstance(node, Request) or node.model is None or not self._known_models:
                continue
            if node.model not in self._known_models:
                known = ", ".join(self._known_models)
                raise RequestError("unknown_model", f"no model {node.model!r}; there is: {known}")

    def _check_capacity(self, delta: GraphDelta) -> None:
        if self._num_unfinished + delta.num_requests > self._config.max_unfinished_calls:
            raise CapacityError(
                "saturated",
                f"{self._num_unfinished} calls are unfinished and {delta.num_requests} would be "
                f"added; at most {self._config.max_unfinished_calls} are taken",
            )

    def _want(self, session: Session, event: GraphSubmitted, now_s: float) -> None:
        """Attach a submit's waiters, by name: a repeat comes with another session id."""
        session.touched_s = now_s
        changed = False
        for wanted in event.wanted:
            name = wanted.variable.partition(".")[2]
            variable = session.graph.variables[variable_id(session.id, name)]
            changed |= session.annotate(variable.id, wanted.criteria)
            if wanted.waiter is not None:
                self._attach(variable, wanted.waiter, wanted.stream)
        if changed:
            self._deduce(session)

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
        session.touched_s = now_s
        propagation = Propagation(session.graph, now_s)
        propagation.resolve(variable, event.value)
        self._carry_out(session, propagation.effects, now_s)

    def _request_value(self, event: ValueRequested, now_s: float) -> None:
        session, variable = self._book.find_variable(event.variable)
        session.touched_s = now_s
        if event.criteria is not None and session.annotate(variable.id, event.criteria):
            self._deduce(session)
        self._attach(variable, event.waiter, event.stream)

    def _leave(self, event: WaiterLeft, now_s: float) -> None:
        variable_of = self._waiting_for.pop(event.waiter, None)
        if variable_of is None:
            return
        session, variable = self._book.find_variable(variable_of)
        del variable.waiters[event.waiter]
        session.touched_s = now_s
        if event.cancel and not variable.waiters:
            self._give_up(session, [variable], "the client went away", now_s)

    def _cancel(self, event: CancelRequested, now_s: float) -> None:
        session = self._book.find(event.session)
        if event.variables is None:
            targets = list(session.graph.variables.values())
        else:
            targets = [self._book.find_variable(v)[1] for v in event.variables]
        session.touched_s = now_s
        self._give_up(session, targets, "cancelled by the client", now_s)

    def _give_up(
        self, session: Session, targets: list[Variable], message: str, now_s: float
    ) -> None:
        propagation = Propagation(session.graph, now_s)
        propagation.cancel(targets, session.annotations, message)
        self._carry_out(session, propagation.effects, now_s)

    def _end_session(self, session: Session, message: str, now_s: float) -> None:
        propagation = Propagation(session.graph, now_s)
        variables = list(session.graph.variables.values())
        for variable in variables:
            if variable.producer is None and not variable.is_settled:
                propagation.fail(
                    variable, "variable_not_set", f"{message} before {variable.name!r} was set"
                )
        propagation.cancel(variables, (), message)
        self._carry_out(session, propagation.effects, now_s)
        self._book.forget(session)

    # --- engines ---------------------------------------------------------------------------

    def _join(self, event: EngineJoined, now_s: float) -> None:
        info = event.info
        if info.engine in self._scheduler.engines:
            raise RequestError("engine_exists", f"engine {info.engine!r} has already joined")
        self._known_models.update(dict.fromkeys(info.models))
        self._scheduler.add_engine(info, now_s)

    def _lose(self, engine: EngineId, reason: str, now_s: float) -> None:
        if engine not in self._scheduler.engines:
            return
        for attempt in self._scheduler.remove_engine(engine).running:
            request = self._running.pop(attempt)
            self._retry(request, "engine_lost", f"engine {engine} was lost: {reason}", now_s)
        if len(self._scheduler.queue):
            self._set_no_engine_timer(now_s)

    def _stream(self, event: TokensGenerated, now_s: float) -> None:
        request = self._running.get(event.attempt)
        if request is None:
            return
        self._hear_from(request, now_s)
        if request.first_token_s is None:
            request.first_token_s = now_s
        variable = self._output_of(request)
        if variable.state is VariableState.EMPTY:
            variable.move(VariableState.GENERATING)
        if not event.text:
            return
        variable.partial.append(event.text)
        for waiter, is_streaming in variable.waiters.items():
            if is_streaming:
                self._commands.append(StreamText(waiter, event.text))

    def _finish(self, event: RequestFinished, now_s: float) -> None:
        request = self._end_attempt(event.attempt, now_s)
        if request is None:
            return
        request.usage = event.usage
        request.move(NodeState.FINISHED)
        request.finished_s = now_s
        if request.first_token_s is None:
            request.first_token_s = now_s
        self._num_unfinished -= 1
        self._learn_length(request)
        session = self._book.find(request.session)
        session.touched_s = now_s
        propagation = Propagation(session.graph, now_s)
        propagation.resolve(
            self._output_of(request),
            event.text,
            token_ids=event.token_ids,
            usage=event.usage,
            finish_reason=event.finish_reason,
        )
        self._carry_out(session, propagation.effects, now_s)

    def _fail_attempt(self, event: RequestFailed, now_s: float) -> None:
        request = self._end_attempt(event.attempt, now_s)
        if request is None:
            return
        if event.is_retryable:
            self._retry(request, event.code, event.message, now_s)
        else:
            self._fail(request, event.code, event.message, now_s)

    def _retry(self, request: Request, code: str, message: str, now_s: float) -> None:
        """Queue a request again, whose attempt has been taken off its engine."""
        assert request.engine is not None
        request.avoided.append(request.engine)
        request.attempt = request.engine = None
        if request.attempts >= self._config.max_attempts:
            self._fail(request, code, f"{message} (attempt {request.attempts})", now_s)
            return
        variable = self._output_of(request)
        if variable.state is VariableState.GENERATING:
            variable.move(VariableState.EMPTY)
        if variable.partial:
            variable.partial.clear()
            self._commands += [ResetStream(w) for w, streams in variable.waiters.items() if streams]
        request.first_token_s = None
        request.ready_s = now_s
        request.move(NodeState.READY)
        self._enqueue(request, now_s)

    def _fail(self, request: Request, code: str, message: str, now_s: float) -> None:
        session = self._book.find(request.session)
        propagation = Propagation(session.graph, now_s)
        propagation.fail(self._output_of(request), code, message)
        self._carry_out(session, propagation.effects, now_s)

    def _end_attempt(self, attempt: AttemptId, now_s: float) -> Request | None:
        """Take an attempt off its engine; None if it is not running (any more)."""
        request = self._running.pop(attempt, None)
        if request is None:
            return None
        assert request.engine is not None
        self._hear_from(request, now_s)
        self._scheduler.release(request.engine, attempt)
        return request

    def _hear_from(self, request: Request, now_s: float) -> None:
        assert request.engine is not None
        self._scheduler.engines[request.engine].last_output_s = now_s

    # --- timers ----------------------------------------------------------------------------

    def _fire(self, event: TimerFired, now_s: float) -> None:
        match event.timer:
            case SessionTimer(session_id):
                self._check_session(session_id, now_s)
            case EngineTimer(engine_id):
                self._check_engine(engine_id, now_s)
            case NoEngineTimer():
                self._check_unserved(now_s)
            case _:
                assert_never(event.timer)

    def _check_session(self, session_id: SessionId, now_s: float) -> None:
        session = self._book.get(session_id)
        if session is None:
            return
        graph = session.graph
        busy = (NodeState.READY, NodeState.RUNNING)
        if any(v.waiters for v in graph.variables.values()) or any(
            n.state in busy for n in graph.nodes.values()
        ):
            session.touched_s = now_s
        if now_s - session.touched_s >= self._config.session_ttl_s:
            self._end_session(session, "the session was idle for too long", now_s)
        else:
            self._set_session_timer(session, session.touched_s)

    def _check_engine(self, engine_id: EngineId, now_s: float) -> None:
        engine = self._scheduler.engines.get(engine_id)
        if engine is None or not engine.running:
            return
        silent_s = now_s - engine.last_output_s
        if silent_s >= self._config.engine_stall_s:
            reason = f"silent for {silent_s:.0f} s with {len(engine.running)} requests"
            self._commands.append(CloseEngine(engine_id, reason))
            self._lose(engine_id, reason, now_s)
        else:
            self._set_engine_timer(engine)

    def _check_unserved(self, now_s: float) -> None:
        unserved = [r for r in self._scheduler.queue if not self._is_served(r)]
        for request in unserved:
            assert request.ready_s is not None
            if now_s - request.ready_s >= self._config.no_engine_s:
                message = f"no engine could serve the call for {self._config.no_engine_s:.0f} s"
                self._fail(request, "no_engine", message, now_s)
        if any(not self._is_served(r) for r in self._scheduler.queue):
            self._set_no_engine_timer(now_s)

    def _is_served(self, request: Request) -> bool:
        return any(e.serves(request.model) for e in self._scheduler.engines.values())

    def _set_session_timer(self, session: Session, from_s: float) -> None:
        due_s = from_s + self._config.session_ttl_s
        self._commands.append(SetTimer(SessionTimer(session.id), due_s))

    def _set_engine_timer(self, engine: EngineState) -> None:
        due_s = engine.last_output_s + self._config.engine_stall_s
        self._commands.append(SetTimer(EngineTimer(engine.id), due_s))

    def _set_no_engine_timer(self, now_s: float) -> None:
        self._commands.append(SetTimer(NoEngineTimer(), now_s + self._config.no_engine_s))

    # --- acting ----------------------------------------------------------------------------

    def _carry_out(self, session: Session, effects: Effects, now_s: float) -> None:
        """Turn what a propagation did into queue entries, aborts and answers."""
        for request in effects.stopped:
            self._stop(request)
        for variable in effects.settled:
            if variable.failure is not None and variable.producer is not None:
                node = session.graph.nodes[variable.producer]
                self._num_unfinished -= isinstance(node, Request)
            for waiter in variable.waiters:
                self._answer(variable, waiter)
            variable.waiters.clear()
        for request in effects.ready:
            self._enqueue(request, now_s)

    def _stop(self, request: Request) -> None:
        self._scheduler.withdraw(request)
        if request.attempt is not None and self._running.pop(request.attempt, None) is not None:
            assert request.engine is not None
            self._scheduler.release(request.engine, request.attempt)
            self._commands.append(AbortRequest(request.engine, request.attempt))

    def _enqueue(self, request: Request, now_s: float) -> None:
        seed = f"{request.tenant}/{request.model or ''}"
        request.prefixes = prefix_chain(seed, request.parts, self._tokens_per_char)
        request.prompt_tokens = request.prefixes[-1].tokens if request.prefixes else 0
        self._scheduler.enqueue(request)
        if not self._is_served(request):
            self._set_no_engine_timer(now_s)

    def _deduce(self, session: Session) -> None:
        objectives = deduce_objectives(session.graph, session.annotations)
        for node_id, objective in objectives.items():
            node = session.graph.nodes[node_id]
            assert isinstance(node, Request)
            if node.objective != objective and not node.has_ended:
                self._scheduler.set_objective(node, objective)

    def _attach(self, variable: Variable, waiter: WaiterId, is_streaming: bool) -> None:
        if is_streaming and variable.partial:
            self._commands.append(StreamText(waiter, "".join(variable.partial)))
        if variable.is_settled:
            self._answer(variable, waiter)
            return
        variable.waiters[waiter] = is_streaming
        self._waiting_for[waiter] = variable.id

    def _answer(self, variable: Variable, waiter: WaiterId) -> None:
        self._waiting_for.pop(waiter, None)
        self._commands.append(
            AnswerWaiter(
                waiter,
                variable.id,
                variable.state,
                variable.value,
                variable.failure,
                variable.usage,
                variable.finish_reason,
            )
        )

    def _place(self, now_s: float) -> None:
        for request, engine_id, reason in self._scheduler.schedule(now_s, _name_attempt):
            engine = self._scheduler.engines[engine_id]
            request.attempts += 1
            request.attempt, request.engine, request.reason = (
                AttemptId(f"{request.id}~{request.attempts}"),
                engine_id,
                reason,
            )
            request.placed_s = now_s
            request.move(NodeState.RUNNING)
            self._running[request.attempt] = request
            if len(engine.running) == 1:
                engine.last_output_s = now_s
                self._set_engine_timer(engine)
            self._commands.append(_start_command(request, engine_id, reason))

    def _output_of(self, request: Request) -> Variable:
        return self._book.find(request.session).graph.variables[request.output]

    def _learn_length(self, request: Request) -> None:
        chars = sum(len(part.text) for part in request.parts)
        if request.usage is None or not chars or not request.usage.prompt_tokens:
            return
        seen = request.usage.prompt_tokens / chars
        self._tokens_per_char += _LENGTH_LEARNING_RATE * (seen - self._tokens_per_char)


def _name_attempt(request: Request) -> AttemptId:
    return AttemptId(f"{request.id}~{request.attempts + 1}")


def _start_command(request: Request, engine: EngineId, reason: str) -> StartRequest:
    assert request.attempt is not None
    return StartRequest(
        engine=engine,
        attempt=request.attempt,
        node=request.id,
        session=request.session,
        tenant=request.tenant,
        model=request.model,
        parts=request.parts,
        sampling=request.sampling,
        objective=request.objective,
        reason=reason,
    )
