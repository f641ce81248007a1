"""What a program sends to the server.

A shipment is one submit, answered by a stream, so that the values of everything it wants come back
over the same response. One without any graph only asks for variables that the server already has.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from parrot_backend.protocol import Scalar, SubmitRequest, WantedOutput, WireCriteria
from parrot_integrations.graph import GraphDelta
from parrot_integrations.stopping import StreamStop


@dataclass(slots=True, eq=False)
class Shipment:
    """A piece of graph on its way to the server.

    It keeps its idempotency key and its content until the server has accepted it, so that sending
    it again after a failure is always safe.

    Attributes:
        delta: New graph; None if there is none.
        wanted: The variables to report, and how urgent each is; None only reports it.
        on_disconnect: What becomes of the work when this client goes away.
        tokens: Whether texts are told while they are generated.
        followed: Control nodes whose instances are reported, too; from their outputs to their
            names.
        session_id: Set when it is sent; None opens a session.
        is_running: A reader is at work on it.
        stop: Ends a reader that is a thread.
    """

    delta: GraphDelta | None
    wanted: Mapping[str, WireCriteria | None]
    app: str
    metadata: Mapping[str, Scalar]
    session_id: str | None = None
    on_disconnect: Literal["continue", "cancel"] = "continue"
    tokens: bool = True
    followed: Mapping[str, str] = field(default_factory=dict)
    is_running: bool = False
    stop: StreamStop = field(default_factory=StreamStop)
    _key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def new_names(self) -> frozenset[str]:
        """The variables it brings."""
        return frozenset() if self.delta is None else self.delta.names

    @property
    def names(self) -> frozenset[str]:
        """All variables it has to do with."""
        return self.new_names.union(self.wanted)

    def request(self) -> SubmitRequest:
        """Return the submit."""
        return SubmitRequest(
            session_id=self.session_id,
            app=self.app,
            metadata=dict(self.metadata),
            idempotency_key=self._key,
            variables=() if self.delta is None else self.delta.variables,
            nodes=() if self.delta is None else self.delta.nodes,
            outputs=tuple(
                WantedOutput(
                    variable=name,
                    criteria=criteria,
                    tokens=self.tokens,
                    instances=name in self.followed,
                )
                for name, criteria in self.wanted.items()
            ),
            stream=True,
            on_disconnect=self.on_disconnect,
        )
