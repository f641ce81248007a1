"""One scheduling pass: how far it has come in each queue, and what it keeps for whom."""

from __future__ import annotations

from collections.abc import Mapping

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.engine_index import EngineIndex
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.kept import Kept
from parrot_backend.core.scheduling.orders import OrderKey
from parrot_backend.core.scheduling.queue import WaitingQueue

#: So many requests are looked at behind the first one that is blocked.
_MAX_PASSED = 64

#: Before all keys of all requests.
_BEFORE_ALL: OrderKey = (-1.0,)


class Cursor:
    """How far one scheduling pass has come in the queue of one model."""

    def __init__(
        self, model: str | None, queue: WaitingQueue, index: EngineIndex, max_passed: int
    ) -> None:
        self.model = model
        self.queue = queue
        self.index = index
        self._max_passed = max_passed
        self._passed = 0
        self._counted = 0

    @property
    def _is_tired(self) -> bool:
        return self._counted > self._max_passed or self._passed > _MAX_PASSED

    @property
    def is_at_end(self) -> bool:
        """Nothing is left that may be placed in this pass."""
        return self._passed >= len(self.queue) or self._is_tired

    @property
    def request(self) -> Request:
        """The next request to be placed."""
        return self.queue[self._passed]

    def key(self) -> OrderKey:
        """Serving order of the next request among those of all models."""
        return self.queue.key(self._passed)

    def pass_over(self, *, counts: bool) -> None:
        """Leave the next request behind: it is blocked.

        Args:
            counts: Whether it counts toward the few that may be passed over.
        """
        self._passed += 1
        self._counted += counts

    def pass_over_settled(self, settled_tokens: int) -> None:
        """Leave all behind that are as blocked as one before, whose engines are all kept already.

        Args:
            settled_tokens: Bounded latency-sensitive requests that need no more are.
        """
        most = _MAX_PASSED + 1 - self._passed
        if settled_tokens >= 0 and most > 0:
            self._passed += self.queue.num_alike(self._passed, most, settled_tokens)

    def reach(self) -> OrderKey | None:
        """Return the key behind which a new request would not have been looked at.

        None if all would: the queue has come to its end, and not the pass.
        """
        if not self._is_tired and self._passed >= len(self.queue):
            return None
        return self.queue.key(self._passed - 1) if self._passed else _BEFORE_ALL


class ServingPass:
    """What one pass keeps.

    Args:
        engines: All live ones.
    """

    def __init__(self, engines: Mapping[EngineId, EngineState]) -> None:
        self.kept = Kept(engines)

    def free_for(self, cursor: Cursor, request: Request) -> FreeEngines | None:
        """Return the engines that the next request may go to; None if there are none."""
        is_bounded = request.objective.is_bounded
        if not self.kept.leaves_any(cursor.model, cursor.index, is_bounded=is_bounded):
            return None
        return FreeEngines(cursor.index, self.kept, is_bounded=is_bounded)

    def leave_behind(self, cursor: Cursor, request: Request) -> None:
        """The next request is blocked: keep engines for it if it is urgent, and go on."""
        is_latency = request.objective.objective_class is ObjectiveClass.LATENCY
        waits_for_its_like = False
        if is_latency or cursor.queue.is_old(request):
            need = request.need_tokens
            waits_for_its_like = self.kept.keep_for(request, need, cursor.index)
        cursor.pass_over(counts=not waits_for_its_like)

    def has_engines(self, cursor: Cursor) -> bool:
        """Tell whether any request of the cursor's model could still be placed."""
        return self.kept.leaves_any(cursor.model, cursor.index, is_bounded=False)
