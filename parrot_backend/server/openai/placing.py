"""Which session the calls of a request go into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from parrot_backend import protocol as wire
from parrot_backend.server.openai.hints import Hints


class CallPlacer(Protocol):
    """Puts the calls of one HTTP request into a session.

    Each call has one output, of the call's own name; who puts calls beside others renames them.
    """

    def place(
        self, calls: Sequence[wire.CallNode], hints: Hints, *, stream: bool
    ) -> wire.SubmitRequest:
        """Return the submit; its ``outputs`` are the calls' outputs, in their order."""
        ...


class SessionPerRequest:
    """A session for each request, which ends with it."""

    def place(
        self, calls: Sequence[wire.CallNode], hints: Hints, *, stream: bool
    ) -> wire.SubmitRequest:
        """Return a submit that opens a session and closes it."""
        return wire.SubmitRequest(
            app=hints.app,
            metadata=hints.labels(),
            nodes=tuple(calls),
            outputs=tuple(
                wire.WantedOutput(variable=call.name, criteria=hints.criteria) for call in calls
            ),
            stream=stream,
            close=True,
            on_disconnect="cancel",
        )
