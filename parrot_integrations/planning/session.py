"""The traffic of one plan: its graph goes out in one submit, and everything comes back by it.

All values of planned calls are reported over the one stream that answers the submit; only what the
program ends with says how urgent it is, the rest is deduced. Setting a late-bound variable and
closing the session are sent in the background.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from parrot_backend.protocol import (
    Scalar,
    VariableDeclaration,
    WireCriteria,
    WireNode,
)
from parrot_integrations.couriers import Courier
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import ParrotError, ProgramError
from parrot_integrations.graph import GraphDelta
from parrot_integrations.outbox import Outbox
from parrot_integrations.planning.background import background
from parrot_integrations.shipment import Shipment
from parrot_integrations.stopping import StreamStop
from parrot_integrations.values import Known, Slot

_logger = logging.getLogger(__name__)

#: How long a value that is set waits for the submit to arrive.
_ACCEPTANCE_S = 60.0
#: How long the end of a session does; then its connection is cut. It is shorter, because ends that
#: wait for a server in trouble would keep values from being set on others.
_CLOSING_S = 10.0


class PlanSession:
    """Sends one plan and follows its variables; may be used from any thread.

    Args:
        courier: Carries the traffic.
        app: Name of the application.
        metadata: Labels of the session.
        tokens: Whether texts are told while they are generated.

    Attributes:
        num_submits: Submits that carried a graph.
        num_sets: Variables that were set after it.
    """

    def __init__(
        self, courier: Courier, app: str, metadata: Mapping[str, Scalar], *, tokens: bool = True
    ) -> None:
        self._courier = courier
        self._tokens = tokens
        self._app = app
        self._metadata = dict(metadata)
        self._slots: dict[str, Slot] = {}
        self._outbox = Outbox(self._slots, courier)
        self._entry: str | None = None
        self._stop = StreamStop()
        self.num_submits = 0
        self.num_sets = 0

    @property
    def session_id(self) -> str | None:
        """Id of the session on the server; None before the submit was accepted."""
        return self._outbox.session_id

    @property
    def is_lost(self) -> bool:
        """Whether nothing can come of it any more."""
        return self._outbox.is_abandoned or self._outbox.has_ended

    def submit(
        self,
        nodes: tuple[WireNode, ...],
        variables: Mapping[str, str | None],
        wanted: Mapping[str, WireCriteria | None],
        followed: Mapping[str, str] | None = None,
    ) -> None:
        """Send the graph and return at once.

        Args:
            nodes: The graph.
            variables: External variables; one without a value is set later.
            wanted: The outputs to report.
            followed: Control nodes, whose instances are reported, too: from those of these outputs
                that are theirs to their names.
        """
        names = frozenset((*variables, *wanted))
        self._slots.update((name, Slot()) for name in names)
        declared = tuple(
            VariableDeclaration(name=name, value=value) for name, value in variables.items()
        )
        delta = GraphDelta(declared, nodes, frozenset(), (), names)
        self._entry = next(iter(wanted), None)
        self.num_submits += 1
        shipment = Shipment(
            delta,
            wanted,
            self._app,
            self._metadata,
            on_disconnect="cancel",
            tokens=self._tokens,
            followed=followed or {},
            stop=self._stop,
        )
        self._outbox.add(shipment)
        self._outbox.pump(wanted)

    def slot(self, name: str) -> Slot:
        """Return the place of an output that is reported, or will be when its instance is there."""
        return self._outbox.instance(name)

    def set(self, name: str, value: str) -> None:
        """Set a late-bound variable in the background.

        If that fails, nothing that waits for it can come: everything open is given up, so that the
        program's calls are made in another way.
        """
        self.num_sets += 1
        background().run(lambda: self._set(name, value))

    def cancel(self, name: str) -> None:
        """Give an output up in the background, with all that waits for it."""
        background().run(lambda: self._cancel(name))

    def close(self) -> None:
        """End the session in the background, with all that is unfinished, and its reader."""
        self._stop.set()
        if self.num_submits:
            background().run(self._close)

    def _set(self, name: str, value: str) -> None:
        try:
            known = self._slots[name].wait_until(_is_accepted, Deadline(_ACCEPTANCE_S), name)
            if known.id is not None:
                self._courier.set_variable(known.id, value)
        except Exception as exc:
            # Whatever it is: calls that wait for the value must be told that it does not come.
            _logger.debug("a late-bound value was not set", exc_info=True)
            self._outbox.abandon(
                exc if isinstance(exc, ParrotError) else ProgramError("not_set", str(exc))
            )
            self._stop.set()
            self._close()

    def _cancel(self, name: str) -> None:
        try:
            self._slots[name].wait_until(_is_accepted, Deadline(_ACCEPTANCE_S), name)
            if self.session_id is not None:
                self._courier.cancel(self.session_id, (name,))
        except ParrotError as exc:
            _logger.debug("an output that nobody wants goes on: %s", exc)

    def _close(self) -> None:
        try:
            if self._entry is not None:
                entry = self._slots[self._entry]
                entry.wait_until(_is_accepted, Deadline(_CLOSING_S), "the plan")
            if self.session_id is not None:
                self._courier.close_session(self.session_id)
        except Exception as exc:  # noqa: BLE001 - the reader must end in any case
            # Its stream goes on, maybe: when that breaks, the server gives up what it is for.
            self._stop.cut()
            _logger.debug("a plan's session was left to expire: %s", exc)


def _is_accepted(known: Known) -> bool:
    return known.id is not None or known.is_final()
