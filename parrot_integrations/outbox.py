"""The traffic of one program: what is sent in which order, and what comes back.

Shipments reach the server in order: each is sent when the one before was accepted. One that could
not be delivered stays, with its idempotency key, and is sent again when somebody wants a value;
one that the server refuses fails its own variables and those of later shipments that read them.
Every variable that a delivery reports is answered when it ends: by a view, or by an error.

Readers call :meth:`Outbox.receive` and :meth:`Outbox.finish` from their threads or tasks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping

from parrot_backend.protocol import (
    StreamReset,
    StreamToken,
    SubmitReply,
    VariableView,
    WireCriteria,
)
from parrot_integrations._replies import StreamEvent, is_settled
from parrot_integrations.couriers import Courier
from parrot_integrations.criteria import adds_nothing
from parrot_integrations.deliveries import Delivery, Shipment, Watch
from parrot_integrations.errors import ParrotError, RequestRejected, ServerFailed
from parrot_integrations.values import Slot

#: Refusals after which the session takes nothing any more.
_SESSION_IS_GONE = frozenset({"unknown_session", "session_closed"})


class Outbox:
    """Sends deliveries and sorts what comes back into slots; may be used from any thread.

    Attributes:
        session_id: Id of the session; None before the server has opened it.
        has_ended: The server has forgotten the session.
    """

    def __init__(self, slots: Mapping[str, Slot], courier: Courier) -> None:
        self.session_id: str | None = None
        self.has_ended = False
        self._slots = slots
        self._courier = courier
        self._lock = threading.RLock()
        self._queue: deque[Delivery] = deque()
        #: Which delivery reports a variable, and the strongest wish the server knows of.
        self._reporter: dict[str, Delivery] = {}
        self._told: dict[str, WireCriteria] = {}
        self._refused: dict[str, ParrotError] = {}

    def unheard(self, names: Iterable[str], criteria: WireCriteria) -> list[str]:
        """Return the variables of which more must be asked to get them with these criteria."""
        with self._lock:
            return [
                name
                for name in names
                if name not in self._refused
                and (name not in self._reporter or not adds_nothing(self._told[name], criteria))
            ]

    def add(self, delivery: Delivery) -> None:
        """Put a delivery at the end of the queue; :meth:`pump` sends it."""
        with self._lock:
            self._queue.append(delivery)
            for name, criteria in delivery.wanted.items():
                self._reporter[name] = delivery
                self._told[name] = criteria
                self._slots[name].reset_text()

    def pump(self, names: Iterable[str] = ()) -> None:
        """Send what can be sent, and clear the errors of variables that are wanted again."""
        with self._lock:
            for name in names:
                if name not in self._refused:
                    self._slots[name].retry()
            while self._queue and not self._queue[0].is_running:
                self._send_first()

    def is_underway(self, name: str) -> bool:
        """Tell whether a variable is in a shipment that the server has yet to accept."""
        with self._lock:
            return any(name in delivery.names for delivery in self._queue)

    def opening(self) -> str | None:
        """Return a variable of the shipment that is on its way to open the session, if any."""
        with self._lock:
            if self.session_id is not None or not self._queue or not self._queue[0].is_running:
                return None
            return min(self._queue[0].names)

    def receive(self, delivery: Delivery, event: StreamEvent) -> None:
        """Take one event of a delivery's stream."""
        with self._lock:
            match event:
                case SubmitReply():
                    self._accepted(delivery, event)
                case StreamToken() if self._reports(delivery, event.variable):
                    self._slot(event.variable).add_text(event.text)
                case StreamReset() if self._reports(delivery, event.variable):
                    self._slot(event.variable).reset_text()
                case VariableView():
                    self._note(event)

    def finish(self, delivery: Delivery, error: ParrotError | None) -> None:
        """Take the end of a delivery's stream; whoever still waits on it is answered."""
        with self._lock:
            delivery.is_running = False
            if isinstance(error, RequestRejected) and error.code in _SESSION_IS_GONE:
                self.has_ended = True
            if delivery in self._queue:
                self._not_delivered(delivery, error or _incomplete())
                return
            for name in delivery.wanted:
                if self._reports(delivery, name):
                    del self._reporter[name]
                    self._slots[name].lose(error or _incomplete())

    def abandon(self, error: ParrotError) -> None:
        """Answer everybody who still waits, because nothing more will be sent or read."""
        with self._lock:
            self._queue.clear()
            for slot in self._slots.values():
                slot.lose(error)

    def _send_first(self) -> None:
        delivery = self._queue[0]
        if isinstance(delivery, Shipment):
            refusal = next(
                (self._refused[n] for n in delivery.delta.inputs if n in self._refused), None
            )
            if refusal is not None:
                self._refuse(delivery, refusal)
                return
        for name in delivery.wanted:
            self._slots[name].retry()
        delivery.session_id = self.session_id
        self._courier.start(self, delivery)
        delivery.is_running = True
        if isinstance(delivery, Watch):
            # It adds nothing to the session: what comes after need not wait for it.
            self._queue.popleft()

    def _accepted(self, delivery: Delivery, reply: SubmitReply) -> None:
        if delivery in self._queue:
            self._queue.remove(delivery)
            self.session_id = reply.session_id
            for name in delivery.names:
                self._slots[name].accept(f"{reply.session_id}.{name}")
        for view in reply.variables.values():
            self._note(view)
        self.pump()

    def _note(self, view: VariableView) -> None:
        if is_settled(view):
            self._slot(view.name).settle(view)

    def _not_delivered(self, delivery: Delivery, error: ParrotError) -> None:
        if isinstance(error, RequestRejected):
            self._refuse(delivery, error)
            self.pump()
            return
        for waiting in self._queue:
            for name in waiting.names:
                self._slots[name].lose(error)

    def _refuse(self, delivery: Delivery, error: ParrotError) -> None:
        self._queue.remove(delivery)
        for name in delivery.wanted:
            self._reporter.pop(name, None)
        for name in delivery.names:
            self._slots[name].lose(error)
        if isinstance(delivery, Shipment):
            self._refused |= dict.fromkeys(delivery.delta.names, error)

    def _reports(self, delivery: Delivery, variable: str) -> bool:
        return self._reporter.get(_name(variable)) is delivery

    def _slot(self, variable: str) -> Slot:
        slot = self._slots.get(_name(variable))
        if slot is None:
            raise ServerFailed("bad_reply", f"the server speaks of {variable!r}, unknown here")
        return slot


def _name(variable: str) -> str:
    """Return the name in a name or id."""
    return variable.rpartition(".")[2]


def _incomplete() -> ParrotError:
    return ServerFailed("stream_incomplete", "the stream ended before all was settled")
