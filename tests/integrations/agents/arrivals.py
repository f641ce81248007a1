"""What the calls of a program were when they reached the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from parrot_backend.core.nodes import Request
from parrot_backend.core.session import Session
from parrot_backend.engines.scripted import render
from tests.helpers.scripted_server import ScriptedServer

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call.

    Attributes:
        prompt: As the engine got it.
        reply: What it answered.
        labels: Of its session.
        stage: What it was called.
    """

    prompt: str
    reply: str
    labels: dict[str, object]
    stage: str | None


class Arrivals:
    """The calls that reach a server from now on, in the order of their arrival."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._before = {node.id for _, node in self._nodes()}

    def calls(self) -> list[Arrival]:
        """Return those that have come; all of them are done."""
        self._server.wait_until_idle()
        found = [(node.order, session, node) for session, node in self._nodes()]
        return [
            Arrival(
                render(node.parts),
                session.graph.variables[node.output].value or "",
                dict(session.metadata),
                node.stage,
            )
            for _, session, node in sorted(found, key=lambda one: one[0])
            if node.id not in self._before
        ]

    def prompts(self) -> list[str]:
        """Return their prompts."""
        return [call.prompt for call in self.calls()]

    def _nodes(self) -> Iterator[tuple[Session, Request]]:
        for session in list(self._server.service.coordinator.sessions):
            for node in list(session.graph.nodes.values()):
                assert isinstance(node, Request)
                yield session, node
