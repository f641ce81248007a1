"""Deadlines of queued requests: which of them have so little time left that it is scarce."""

from __future__ import annotations

from bisect import bisect_left, insort

from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import Request

#: Time is scarce when less is left than so many times what the longest path to come takes, since
#: forecasts are means, and engines are shared.
_SCARCE = 2.0


class SlackWatch:
    """Queued requests with deadlines that are not pressed yet, by the time when they will be."""

    def __init__(self) -> None:
        self._sorted: list[tuple[float, NodeId]] = []
        self._due_s: dict[NodeId, float] = {}

    def note(self, request: Request) -> None:
        """Take in a request that is queued, or what has become known of it since."""
        self.forget(request)
        deadline_s = request.objective.deadline_s
        if deadline_s is not None and not request.is_pressed:
            due_s = deadline_s - _SCARCE * request.path_tokens * request.token_s
            self._due_s[request.id] = due_s
            insort(self._sorted, (due_s, request.id))

    def forget(self, request: Request) -> None:
        """Take in that a request has left the queue."""
        due_s = self._due_s.pop(request.id, None)
        if due_s is not None:
            del self._sorted[bisect_left(self._sorted, (due_s, request.id))]

    def pressed(self, now_s: float) -> list[NodeId]:
        """Return the requests whose time has become scarce, the most pressed first."""
        number = 0
        while number < len(self._sorted) and self._sorted[number][0] <= now_s:
            number += 1
        return [node_id for _, node_id in self._sorted[:number]]
