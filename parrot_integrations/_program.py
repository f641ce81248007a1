"""One program: its graph, what is known of its values, and its session on the server.

Recording is local. The first ``get`` ships everything recorded so far in one submit that is
answered by a stream; a reader (a thread, or a task for an async program) fills in values as they
come. The submit wants, besides what is being gotten, every *leaf*: each output that no recorded
call reads. Such values are what a program gets sooner or later, so a later ``get`` is a local wait
and costs no round trip: the paper's ``return code.get(...), test.get(...)`` is one request. A leaf
inherits the kind of the criteria of the get that ships it. A later get that asks for more than
the server was told, or for variables between calls, opens a stream for just those.

Readers are daemon threads: they never hold up the end of the interpreter. One ends when all that
its stream reports is settled, when the session is closed, or when the connection is lost for good.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Hashable, Mapping

from parrot_backend.protocol import (
    InputSegment,
    Scalar,
    TextSegment,
    WireCriteria,
    WireTransform,
)
from parrot_integrations.couriers import Courier
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import ParrotError, ProgramError
from parrot_integrations.graph import CallOptions, GraphRecorder
from parrot_integrations.outbox import Outbox
from parrot_integrations.shipment import Shipment
from parrot_integrations.templates import Argument, PromptTemplate
from parrot_integrations.values import Known, Slot, ready_view

_logger = logging.getLogger(__name__)

#: How long closing waits for a session that is just being opened, so as to close that, too.
_OPENING_S = 5.0


class Program:
    """One run of an application; may be used from any thread.

    Args:
        courier: Carries the traffic.
        app: Name of the application, for people and for metrics.
        metadata: Free labels of the session.
    """

    def __init__(
        self, courier: Courier, *, app: str = "", metadata: Mapping[str, Scalar] | None = None
    ) -> None:
        self._courier = courier
        self._app = app
        self._metadata = dict(metadata or {})
        self._lock = threading.Lock()
        self._recorder = GraphRecorder()
        self._slots: dict[str, Slot] = {}
        self._constants: dict[Hashable, str] = {}
        self._outbox = Outbox(self._slots, courier)
        self._is_closed = False

    @property
    def session_id(self) -> str | None:
        """Id of the session on the server; None before the first get."""
        return self._outbox.session_id

    @property
    def has_ended(self) -> bool:
        """True when nothing can be added any more."""
        return self._is_closed or self._outbox.has_ended

    def slot(self, name: str) -> Slot:
        """Return the place of a variable of this program."""
        return self._slots[name]

    def declare_constant(self, key: Hashable, hint: str, value: str) -> str:
        """Return the name of a constant, recording it on first use; ``key`` identifies it."""
        with self._lock:
            known = self._constants.get(key)
            if known is not None and not self._outbox.is_refused(known):
                return known
            name = self._recorder.add_external(hint, value)
            self._constants[key] = name
            self._slots[name] = Slot()
            self._slots[name].settle(ready_view(name, value))
            return name

    def declare_external(self, hint: str, slot: Slot) -> str:
        """Record an external variable without a value, known by ``slot``; return its name."""
        with self._lock:
            name = self._recorder.add_external(hint, None)
            self._slots[name] = slot
        return name

    def add_call(
        self,
        hint: str,
        template: PromptTemplate,
        arguments: Mapping[str, Argument],
        options: CallOptions,
    ) -> dict[str, str]:
        """Record a call and return the variable's name of each output placeholder."""
        with self._lock:
            names = self._recorder.add_call(hint, template, arguments, options)
            self._slots.update((name, Slot()) for name in names.values())
        return names

    def add_transform(
        self,
        hint: str,
        content: tuple[TextSegment | InputSegment, ...],
        transforms: tuple[WireTransform, ...] = (),
    ) -> str:
        """Record a text computed on the server and return its variable's name."""
        with self._lock:
            name = self._recorder.add_transform(hint, content, transforms)
            self._slots[name] = Slot()
        return name

    def check_blocking(self) -> None:
        """Make sure that this program's values may be waited for by blocking."""
        self._courier.check_blocking()

    def want(self, names: Collection[str], criteria: WireCriteria) -> None:
        """Ship what was recorded so far, and see to it that these variables will be known.

        Returns without waiting for them.

        Raises:
            NotConfigured: No server is known.
            ProgramError: ``program_closed``.
        """
        self._check_open()
        self._courier.connect()
        with self._lock:
            unheard = self._outbox.unheard(names, criteria)
            delta = self._recorder.take()
            leaves = () if delta is None else delta.leaves
            wanted = dict.fromkeys(leaves, WireCriteria(kind=criteria.kind))
            wanted |= dict.fromkeys(unheard, criteria)
            if delta is not None or wanted:
                self._outbox.add(Shipment(delta, wanted, self._app, self._metadata))
        self._outbox.pump(names)

    def set(self, name: str, value: str) -> None:
        """Set an external variable, blocking until the server has it."""
        if self._set_locally(name, value):
            return
        self.check_blocking()
        known = self._slots[name].wait_until(_is_accepted, Deadline(None), name)
        self._courier.set_variable(_id_of(known), value)
        self._slots[name].settle(ready_view(name, value))

    async def aset(self, name: str, value: str) -> None:
        """Set an external variable."""
        if self._set_locally(name, value):
            return
        known = await self._slots[name].await_until(_is_accepted, Deadline(None), name)
        await self._courier.aset_variable(_id_of(known), value)
        self._slots[name].settle(ready_view(name, value))

    def cancel(self, name: str) -> None:
        """Give up a variable, blocking until the server knows."""
        self.check_blocking()
        self._check_sent(name)
        known = self._slots[name].wait_until(_is_accepted, Deadline(None), name)
        self._courier.cancel(_session_of(known), (name,))

    async def acancel(self, name: str) -> None:
        """Give up a variable."""
        self._check_sent(name)
        known = await self._slots[name].await_until(_is_accepted, Deadline(None), name)
        await self._courier.acancel(_session_of(known), (name,))

    def close(self) -> None:
        """Take nothing more, and end the session on the server."""
        self._is_closed = True
        try:
            opening = self._outbox.opening()
            if opening is not None:
                self._slots[opening].wait_until(_is_accepted, Deadline(_OPENING_S), "the session")
            if self.session_id is not None:
                self._courier.close_session(self.session_id)
        except ParrotError as exc:
            _logger.warning("session %s was left to expire: %s", self.session_id, exc)
        self._outbox.abandon(_closed())

    async def aclose(self) -> None:
        """Take nothing more, and end the session on the server."""
        self._is_closed = True
        try:
            opening = self._outbox.opening()
            if opening is not None:
                slot = self._slots[opening]
                await slot.await_until(_is_accepted, Deadline(_OPENING_S), "the session")
            if self.session_id is not None:
                await self._courier.aclose_session(self.session_id)
        except ParrotError as exc:
            _logger.warning("session %s was left to expire: %s", self.session_id, exc)
        self._outbox.abandon(_closed())

    def _set_locally(self, name: str, value: str) -> bool:
        self._check_open()
        if self._slots[name].known.view is not None:
            raise ProgramError("variable_already_set", f"variable {name!r} has a value already")
        with self._lock:
            is_recorded = self._recorder.set_external(name, value)
        if is_recorded:
            self._slots[name].settle(ready_view(name, value))
        else:
            self._outbox.pump([name])
        return is_recorded

    def _check_sent(self, name: str) -> None:
        self._check_open()
        if self._slots[name].known.id is None and not self._outbox.is_underway(name):
            raise ProgramError(
                "not_started", f"variable {name!r} was not sent to the server: nothing to cancel"
            )
        self._outbox.pump([name])

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()


def _is_accepted(known: Known) -> bool:
    return known.id is not None or known.error is not None


def _id_of(known: Known) -> str:
    if known.id is None:
        assert known.error is not None, "waited for one of the two"
        raise known.error.with_traceback(None)
    return known.id


def _session_of(known: Known) -> str:
    return _id_of(known).partition(".")[0]


def _closed() -> ProgramError:
    return ProgramError("program_closed", "the program was closed; what it did not get is gone")
