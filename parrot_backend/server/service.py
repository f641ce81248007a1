"""The server without HTTP: core, runtime, engines and metrics, put together and shut down in order.

Routes call it; it knows nothing of requests and replies beyond the wire models. One object is one
server; there is no global state.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from parrot_backend import protocol as wire
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria
from parrot_backend.core.events import (
    CancelRequested,
    GraphSubmitted,
    SessionClosed,
    ValueRequested,
)
from parrot_backend.core.ids import EngineId, SessionId, VariableId, name_of, variable_id
from parrot_backend.core.step_time import StepWork
from parrot_backend.engines.base import EngineLoad
from parrot_backend.errors import CapacityError
from parrot_backend.metrics.prometheus import EngineGauges, PrometheusMetrics, ServerGauges
from parrot_backend.server.clock import Clock
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.convert import SubmitContext, submit_to_event
from parrot_backend.server.engine_requests import DEFAULT_TENANT
from parrot_backend.server.observability import CallObserver
from parrot_backend.server.open_sessions import OpenSessions
from parrot_backend.server.recorder import EventRecorder
from parrot_backend.server.runtime import Runtime
from parrot_backend.server.supervisor import EngineSlot, Supervisor
from parrot_backend.server.views import answer_to_view, variable_to_view
from parrot_backend.server.waiting import Inbox

logger = logging.getLogger(__name__)


class Service:
    """One Parrot server.

    Attributes:
        coordinator: The core, to be read; it changes through ``runtime`` alone.
        runtime: The way to the core.
        supervisor: The engines.
        open_sessions: Sessions of calls that come one by one.
        metrics: What Prometheus sees.
        call_overheads: What calls take beside their engine's time.
        started_unix_s: When it was made.
        is_draining: A shutdown has begun; new work is refused.
    """

    def __init__(self, settings: ServerSettings, slots: Sequence[EngineSlot], clock: Clock) -> None:
        """Put a server together.

        Raises:
            OSError: The recording that was asked for cannot be made.
        """
        self.settings = settings
        self.clock = clock
        self.metrics = PrometheusMetrics()
        self.coordinator = Coordinator(settings.core_config())
        self.supervisor = Supervisor(slots, settings.supervisor_config(), clock)
        observer = CallObserver(self.metrics)
        self.call_overheads = observer.overheads
        self._recorder: EventRecorder | None = None
        if settings.record is not None:
            self._recorder = EventRecorder(settings.record, settings.core_config())
        self.runtime = Runtime(self.coordinator, clock, self.supervisor, observer, self._recorder)
        self.open_sessions = OpenSessions(
            self.coordinator.sessions,
            lambda session: self.runtime.dispatch(SessionClosed(session)),
            settings.open_sessions_config(),
        )
        self.started_unix_s = int(time.time())
        self.is_draining = False
        self.metrics.watch(self._gauges)

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to open the engines and return at once."""
        self.supervisor.open(self.runtime.dispatch)

    async def drain(self) -> None:
        """Refuse new work, let unfinished calls go on for a while, then answer every waiter."""
        self.is_draining = True
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self.runtime.idle()
        except TimeoutError:
            unfinished = self.coordinator.num_unfinished_calls
            logger.warning("shutting down with %d unfinished calls", unfinished)
        self.runtime.end_all_sessions()

    async def stop(self) -> None:
        """Drain, unless that is done, and close the engines."""
        if not self.is_draining:
            await self.drain()
        await self.supervisor.close()
        if self._recorder is not None:
            self._recorder.close()

    # --- requests --------------------------------------------------------------------------

    def check_ready(self) -> None:
        """Check that an engine serves.

        Raises:
            CapacityError: ``shutting_down`` or ``no_engine``.
        """
        if self.is_draining:
            raise CapacityError("shutting_down", "the server is shutting down", retry_after_s=5)
        if not self.coordinator.engines:
            raise CapacityError("no_engine", "no engine is ready yet", retry_after_s=5)

    def submit(
        self,
        body: wire.SubmitRequest,
        inbox: Inbox,
        *,
        discovers: bool = False,
        is_run: bool = True,
        tenant: str = DEFAULT_TENANT,
        ttl_s: float | None = None,
    ) -> SessionId:
        """Hand a graph to the core; if the request waits, its waiters' messages go to the inbox.

        Args:
            body: The graph.
            inbox: Where messages go.
            discovers: What its calls read is found in their texts.
            is_run: A new session is one run of a program, not all that some user does.
            tenant: Whose it is.
            ttl_s: How long a new session may be idle; None takes the configured time.

        Returns:
            The session: the given one, a new one, or an earlier one with the same key.

        Raises:
            ParrotError: The submit was rejected; nothing has changed.
        """
        self._check_accepting(body)
        is_new = body.session_id is None
        session = SessionId(secrets.token_hex(16) if is_new else str(body.session_id))
        waited = body.outputs if body.wait or body.stream else ()
        waiters = {out.variable: self.runtime.expect(inbox, out.variable) for out in waited}
        now_s = self.clock.now_s()
        try:
            event = submit_to_event(body, SubmitContext(session, is_new, tenant, now_s, waiters))
            self.runtime.dispatch(replace(event, discovers=discovers, is_run=is_run, ttl_s=ttl_s))
        except BaseException:
            self.runtime.leave(inbox)
            raise
        self.metrics.count_submit()
        if body.idempotency_key is not None:
            known = self.coordinator.session_of_key(tenant, body.idempotency_key)
            return session if known is None else known
        return session

    def request_value(
        self, variable: VariableId, criteria: Criteria | None, inbox: Inbox, *, stream: bool
    ) -> None:
        """Wait for a variable.

        Raises:
            RequestError: ``unknown_session`` or ``unknown_variable``.
        """
        waiter = self.runtime.expect(inbox, name_of(variable))
        try:
            self.runtime.dispatch(ValueRequested(waiter, variable, criteria, stream))
        except BaseException:
            self.runtime.leave(inbox)
            raise

    def end_session(self, session: SessionId) -> None:
        """End a session for a client; what requests wait for in a shared one is finished first.

        Raises:
            RequestError: ``unknown_session``.
        """
        live = self.coordinator.session(session)
        if not self.open_sessions.end_after_work(session):
            self.runtime.dispatch(SessionClosed(session))
        elif not live.is_closed:
            self.runtime.dispatch(
                GraphSubmitted(session, is_new=False, tenant=live.tenant, close=True, quiet=True)
            )

    def cancel(self, session: SessionId, names: Sequence[str] | None) -> None:
        """Give up variables of a session; in a shared one, none that somebody waits for.

        Args:
            session: The session.
            names: None means all that are unfinished.

        Raises:
            RequestError: ``unknown_session`` or ``unknown_variable``.
        """
        variables = None if names is None else [variable_id(session, name) for name in names]
        live = self.coordinator.session(session)
        if self.open_sessions.is_shared(session):
            given = live.graph.variables if variables is None else variables
            variables = [v for v in given if not live.find(v).waiters]
        self.runtime.dispatch(
            CancelRequested(session, None if variables is None else tuple(variables))
        )

    def views(
        self,
        session: SessionId,
        names: Sequence[str],
        answers: Mapping[str, AnswerWaiter] = MappingProxyType({}),
    ) -> dict[str, wire.VariableView]:
        """Return variables by name: as answered, or else as they are now."""
        return {name: self.view(variable_id(session, name), answers) for name in names}

    def view(
        self, variable: VariableId, answers: Mapping[str, AnswerWaiter] = MappingProxyType({})
    ) -> wire.VariableView:
        """Return a variable as answered (its session may be gone), or else as it is now."""
        answer = answers.get(name_of(variable))
        if answer is not None:
            return answer_to_view(answer)
        return variable_to_view(self.coordinator.variable(variable))

    def wait_limit_s(self, timeout_s: float | None) -> float:
        """Return how long a request waits that asks for ``timeout_s``."""
        longest_s = self.settings.max_wait_s
        return longest_s if timeout_s is None else min(timeout_s, longest_s)

    def _check_accepting(self, body: wire.SubmitRequest) -> None:
        if self.is_draining:
            raise CapacityError("shutting_down", "the server is shutting down", retry_after_s=5)
        limit = self.settings.max_sessions
        is_full = body.session_id is None and len(self.coordinator.sessions) >= limit
        if is_full and not self.open_sessions.end_idlest():
            raise CapacityError(
                "saturated", f"{limit} sessions are live; delete the ones you have done with"
            )

    # --- metrics ---------------------------------------------------------------------------

    def _gauges(self) -> ServerGauges:
        engines = self.coordinator.engines.values()
        return ServerGauges(
            begun=self.coordinator.num_begun_calls,
            running=sum(len(engine.running) for engine in engines),
            waiting=self.coordinator.num_waiting,
            unfinished=self.coordinator.num_unfinished_calls,
            sessions=len(self.coordinator.sessions),
            waiters=self.runtime.num_waiters,
            merged=self.coordinator.optimiser.num_merged,
            cache_hits=self.coordinator.optimiser.num_cache_hits,
            pruned=self.coordinator.optimiser.num_pruned,
            is_up=self.supervisor.is_up(),
            engines={
                engine: self._engine_gauges(engine, load)
                for engine, load in self.supervisor.loads().items()
            },
        )

    def _engine_gauges(self, engine: EngineId, load: EngineLoad) -> EngineGauges:
        state = self.coordinator.engines.get(engine)
        model = None if state is None else state.step_time
        attention = load.attention
        return EngineGauges(
            running=load.running,
            waiting=load.waiting,
            kv_usage=load.kv_usage,
            pinned_tokens=load.pinned_tokens,
            pinned_hit_tokens=load.pinned_hit_tokens,
            lost_pins=load.lost_pins,
            preempted=load.preempted,
            step_s=None if model is None else model.predict_s(StepWork.decode(1_000)),
            attention_steps=None if attention is None else attention.steps,
            attention_shared_steps=None if attention is None else attention.shared_steps,
            attention_kv_tokens=None if attention is None else attention.kv_tokens,
            attention_kv_tokens_read=None if attention is None else attention.kv_tokens_read,
        )
