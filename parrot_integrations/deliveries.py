"""What a program sends to the server: shipments of graph, and watches of single variables.

A shipment is one submit, answered by a stream, so that the values of everything it wants come back
over the same response. A watch is a stream of one variable that no shipment reports, or for which
more is asked than the server knows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from parrot_backend.protocol import Scalar, SubmitRequest, WantedOutput, WireCriteria
from parrot_integrations.graph import GraphDelta


@dataclass(slots=True, eq=False)
class Shipment:
    """A piece of graph on its way to the server.

    It keeps its idempotency key and its content until the server has accepted it, so that sending
    it again after a failure is always safe.

    Attributes:
        wanted: The variables to report, and how urgent each is.
        session_id: Set when it is sent; None opens a session.
        is_running: A reader is at work on it.
    """

    delta: GraphDelta
    wanted: Mapping[str, WireCriteria]
    app: str
    metadata: Mapping[str, Scalar]
    session_id: str | None = None
    is_running: bool = False
    _key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def names(self) -> frozenset[str]:
        """All variables it has to do with."""
        return self.delta.names.union(self.wanted)

    def request(self) -> SubmitRequest:
        """Return the submit."""
        return SubmitRequest(
            session_id=self.session_id,
            app=self.app,
            metadata=dict(self.metadata),
            idempotency_key=self._key,
            variables=self.delta.variables,
            nodes=self.delta.nodes,
            outputs=tuple(
                WantedOutput(variable=name, criteria=criteria)
                for name, criteria in self.wanted.items()
            ),
            stream=True,
        )


@dataclass(slots=True, eq=False)
class Watch:
    """A wish to hear of one variable that the server already has."""

    name: str
    criteria: WireCriteria
    session_id: str | None = None
    is_running: bool = False

    @property
    def wanted(self) -> Mapping[str, WireCriteria]:
        """The one variable to report."""
        return {self.name: self.criteria}

    @property
    def names(self) -> frozenset[str]:
        """The one variable it has to do with."""
        return frozenset({self.name})

    @property
    def variable_id(self) -> str:
        """Id of the variable on the server."""
        return f"{self.session_id}.{self.name}"


Delivery = Shipment | Watch
