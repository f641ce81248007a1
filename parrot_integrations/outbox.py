"""The traffic of one program: what is sent in which order, and what comes back.

Shipments reach the server in order: each is sent when the one before was accepted. One that could
not be delivered stays, with its idempotency key, and is sent again when somebody wants a value;
one that the server refuses fails its own variables and those of later shipments that read them.
Every variable that a shipment reports is answered when it ends: by a view, or by an error.

Readers call :meth:`Outbox.receive` and :meth:`Outbox.finish` from their threads or tasks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, MutableMapping

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
from parrot_integrations.errors import (
    ParrotError,
    RequestRejected,
    ServerFailed,
    SessionReplaced,
)
from parrot_integrations.shipment import Shipment
from parrot_integrations.values import Slot

#: Refusals after which the session takes nothing any more.
_SESSION_IS_GONE = frozenset({"unknown_session", "session_closed"})


class Outbox:
    """Sends shipments and sorts what comes back into slots; may be used from any thread.

    Attributes:
        session_id: Id of the session; None before the server has opened it.
        has_ended: The server has forgotten the session.
        is_abandoned: Nothing is taken any more.
    """

    def __init__(self, slots: MutableMapping[str, Slot], courier: Courier) -> None:
        self.session_id: str | None = None
        self.has_ended = False
        self.is_abandoned = False
        self._slots = slots
        self._courier = courier
        self._lock = threading.RLock()
        self._queue: deque[Shipment] = deque()
        #: Which shipment reports a variable, and the strongest wish the server knows of.
        self._reporter: dict[str, Shipment] = {}
        self._told: dict[str, WireCriteria | None] = {}
        self._refused: dict[str, ParrotError] = {}
        #: Reports what comes into being in instances of control nodes; and why no more comes, of
        #: all of them or of those whose names begin in some way.
        self._follower: Shipment | None = None
        self._unfollowed: ParrotError | None = None
        self._ended: dict[str, ParrotError] = {}

    def unheard(self, names: Iterable[str], criteria: WireCriteria) -> list[str]:
        """Return the variables of which more must be asked to get them with these criteria."""
        with self._lock:
            return [
                name
                for name in names
                if name not in self._refused
                # It may have come since the caller looked, and its reporter be gone.
                and self._slots[name].known.view is None
                and (name not in self._reporter or not adds_nothing(self._told[name], criteria))
            ]

    def add(self, shipment: Shipment) -> None:
        """Put a shipment at the end of the queue; :meth:`pump` sends it."""
        with self._lock:
            self._queue.append(shipment)
            if shipment.followed:
                self._follower = shipment
            for name, criteria in shipment.wanted.items():
                self._reporter[name] = shipment
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
            return any(name in shipment.names for shipment in self._queue)

    def is_refused(self, name: str) -> bool:
        """Tell whether the server refused the shipment that brought a variable."""
        with self._lock:
            return name in self._refused

    def opening(self) -> str | None:
        """Return a variable of the shipment that is on its way to open the session, if any."""
        with self._lock:
            if self.session_id is not None or not self._queue or not self._queue[0].is_running:
                return None
            return min(self._queue[0].names)

    def receive(self, shipment: Shipment, event: StreamEvent) -> None:
        """Take one event of a shipment's stream.

        Raises:
            SessionReplaced: It belongs to another session than what came before.
        """
        with self._lock:
            if self.is_abandoned:
                return
            match event:
                case SubmitReply():
                    self._accepted(shipment, event)
                case StreamToken() if self._reports(shipment, event.variable):
                    self._add_text(event)
                case StreamReset() if self._reports(shipment, event.variable):
                    self._slot(event.variable).reset_text()
                case VariableView():
                    self._note(event)
                    self._end_instances(event)

    def finish(self, shipment: Shipment, error: ParrotError | None) -> None:
        """Take the end of a shipment's stream; whoever still waits on it is answered."""
        with self._lock:
            shipment.is_running = False
            if _says_gone(error):
                self.has_ended = True
            if shipment in self._queue:
                self._not_delivered(shipment, error or _incomplete())
                return
            for name in shipment.wanted:
                if self._reports(shipment, name):
                    del self._reporter[name]
                    self._slots[name].lose(error or _incomplete())
            if shipment is self._follower:
                self._unfollow(error or _incomplete())

    def instance(self, name: str) -> Slot:
        """Return the place of an output in an instance of a control node that is followed."""
        with self._lock:
            slot = self._slots.get(name)
            if slot is None:
                slot = self._slots[name] = Slot()
                if self.session_id is not None:
                    slot.accept(f"{self.session_id}.{name}")
                ends = (e for prefix, e in self._ended.items() if name.startswith(prefix))
                if (error := self._unfollowed or next(ends, None)) is not None:
                    slot.lose(error)
            return slot

    def abandon(self, error: ParrotError) -> None:
        """Answer everybody who still waits, because nothing more will be sent or read."""
        with self._lock:
            self.is_abandoned = True
            self._queue.clear()
            self._unfollowed = error
            for slot in tuple(self._slots.values()):
                slot.lose(error)

    def _send_first(self) -> None:
        shipment = self._queue[0]
        inputs = frozenset[str]() if shipment.delta is None else shipment.delta.inputs
        refusal = next((self._refused[name] for name in inputs if name in self._refused), None)
        if refusal is not None:
            self._refuse(shipment, refusal)
            return
        for name in shipment.wanted:
            self._slots[name].retry()
        shipment.session_id = self.session_id
        self._courier.start(self, shipment)
        shipment.is_running = True
        if shipment.delta is None:
            # It adds nothing to the session: what comes after need not wait for it.
            self._queue.popleft()

    def _accepted(self, shipment: Shipment, reply: SubmitReply) -> None:
        if shipment in self._queue:
            self._queue.remove(shipment)
            self.session_id = reply.session_id
            for name in shipment.names:
                self._slots[name].accept(f"{reply.session_id}.{name}")
        elif reply.session_id != self.session_id:
            raise SessionReplaced(reply.session_id)
        for view in reply.variables.values():
            self._note(view)
        self.pump()

    def _add_text(self, event: StreamToken) -> None:
        slot = self._slot(event.variable)
        (slot.add_text if event.kind == "text" else slot.add_reasoning)(event.text)

    def _note(self, view: VariableView) -> None:
        if is_settled(view):
            self._slot(view.name).settle(view)

    def _end_instances(self, view: VariableView) -> None:
        """When a control node has ended, answer who waits for instances that it will not make."""
        node = None if self._follower is None else self._follower.followed.get(_name(view.name))
        if node is None or not is_settled(view):
            return
        prefix = f"{node}:"
        error = self._ended[prefix] = ServerFailed("node_ended", f"{node!r} is {view.state}")
        for name, slot in self._slots.items():
            if not name.startswith(prefix):
                continue
            # What does not count for the value of a node may go on after it. Only who made it can
            # tell that of nodes within.
            if view.state != "ready" or name.removeprefix(prefix).count(":") > 1:
                slot.lose(error)

    def _unfollow(self, error: ParrotError) -> None:
        self._follower, self._unfollowed = None, error
        for name, slot in self._slots.items():
            if _is_instance(name):
                slot.lose(error)

    def _not_delivered(self, shipment: Shipment, error: ParrotError) -> None:
        if isinstance(error, RequestRejected):
            self._refuse(shipment, error)
            self.pump()
            return
        for waiting in self._queue:
            if waiting is self._follower:
                self._unfollow(error)
            for name in waiting.names:
                self._slots[name].lose(error)

    def _refuse(self, shipment: Shipment, error: ParrotError) -> None:
        self._queue.remove(shipment)
        if shipment is self._follower:
            self._unfollow(error)
        for name in shipment.wanted:
            self._reporter.pop(name, None)
        for name in shipment.names:
            self._slots[name].lose(error)
        self._refused |= dict.fromkeys(shipment.new_names, error)

    def _reports(self, shipment: Shipment, variable: str) -> bool:
        name = _name(variable)
        return self._reporter.get(name, self._follower if _is_instance(name) else None) is shipment

    def _slot(self, variable: str) -> Slot:
        name = _name(variable)
        if _is_instance(name) and self._follower is not None:
            return self.instance(name)
        slot = self._slots.get(name)
        if slot is None:
            raise ServerFailed("bad_reply", f"the server speaks of {variable!r}, unknown here")
        return slot


def _says_gone(error: ParrotError | None) -> bool:
    if isinstance(error, RequestRejected):
        return error.code in _SESSION_IS_GONE
    return isinstance(error, SessionReplaced)


def _is_instance(name: str) -> bool:
    return ":" in name


def _name(variable: str) -> str:
    """Return the name in a name or id."""
    return variable.rpartition(".")[2]


def _incomplete() -> ParrotError:
    return ServerFailed("stream_incomplete", "the stream ended before all was settled")
