"""Baseline policy ``session_affinity``: the calls of a session go where its first one went.

As routers keep it with a map from routing keys to workers (the policy ``manual`` of SGLang's
gateway, https://github.com/lightseekorg/smg, docs/configuration/routing.md, with its assignment
``min_load``): a new session goes to the engine with the fewest requests and stays there, also when
engines are added. The key is the session, and the model, since an engine may not serve all of them.

While the engine of a session is full, or failed this request, the least loaded of the others takes
the call, and the session keeps its place; when the engine is gone, the next call finds a new one.
The gateway lets a call wait in the engine's own queue instead.

Wrong choice where sessions differ much in load, or share prompts among each other.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId, SessionId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.baselines import has_room, least_loaded
from parrot_backend.core.scheduling.memory import PlacementMemory
from parrot_backend.core.scheduling.placement import ClusterView, Placement


class SessionHomes(PlacementMemory):
    """Where sessions are at home, for each model that they use.

    It outlives the sessions, since a client may come back under the same name; names are kept as
    digests.

    Args:
        max_sessions: The session that was placed longest ago is forgotten beyond this.
    """

    def __init__(self, max_sessions: int) -> None:
        self._max_sessions = max_sessions
        self._homes: OrderedDict[bytes, dict[str | None, EngineId]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._homes)

    def home(self, request: Request) -> EngineId | None:
        """Return where the session of a request is at home; None for nowhere yet."""
        return self._homes.get(_digest(request.session), {}).get(request.model)

    def placed(self, request: Request, attempt: AttemptId, engine: EngineState) -> None:
        """Take in a placement: the first of a session makes its home."""
        key = _digest(request.session)
        self._homes.setdefault(key, {}).setdefault(request.model, engine.id)
        self._homes.move_to_end(key)
        while len(self._homes) > self._max_sessions:
            self._homes.popitem(last=False)

    def lost(self, engine: EngineId) -> None:
        """Forget the homes on an engine."""
        for homes in self._homes.values():
            for model in [model for model, home in homes.items() if home == engine]:
                del homes[model]


class SessionAffinityPlacement:
    """The home of the request's session, else the least loaded engine."""

    def __init__(self, homes: SessionHomes) -> None:
        self._homes = homes

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request at home, if there is room."""
        home = self._homes.home(request)
        engines = [e for e in view.candidates([request]) if has_room(request, e, view)]
        for engine in engines:
            if engine.id == home:
                return [Placement(request, engine.id, "its session began here")]
        if not engines:
            return []
        best = least_loaded(engines)
        why = (
            "its session is new"
            if home is None
            else f"{home}, where its session began, is not free"
        )
        return [Placement(request, best.id, f"{why}: fewest running requests")]


def _digest(session: SessionId) -> bytes:
    # Two sessions with one digest would share a home, and nothing else.
    return blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8).digest()
