"""What the calls of a program were when they reached the server."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.nodes import Request
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
    """

    prompt: str
    reply: str
    labels: dict[str, object]


class Arrivals:
    """The calls that reach a server from now on, in the order of their arrival."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._num_before = len(list(server.service.coordinator.sessions))

    def calls(self) -> list[Arrival]:
        """Return those that have come; all of them are done."""
        self._server.wait_until_idle()
        sessions = list(self._server.service.coordinator.sessions)[self._num_before :]
        found = []
        for session in sessions:
            for node in session.graph.nodes.values():
                assert isinstance(node, Request)
                reply = session.graph.variables[node.output].value or ""
                found.append(Arrival(render(node.parts), reply, dict(session.metadata)))
        return found

    def prompts(self) -> list[str]:
        """Return their prompts."""
        return [call.prompt for call in self.calls()]
