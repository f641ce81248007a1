"""Which engines one scheduling pass keeps for requests that it found blocked.

What a blocked latency-sensitive (or old) request waits for must not go to others. All engines that
could run it are kept for it, so they are not listed but described: for each model the largest need
that is waited for. Only engines whose account changes in the pass are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.engine_index import EngineIndex, by_room

#: More than any request needs.
_EVERYTHING = 1 << 60


@dataclass(slots=True)
class _Rule:
    """What is kept of the engines of one model; those without room for the need, from everybody.

    Those that have room only wait for the latency capacity: they are kept from what is bounded.

    Attributes:
        need_tokens: The most that any blocked request needs.
        settled_tokens: A request that needs no more would change nothing.
    """

    need_tokens: int = -1
    settled_tokens: int = -1


class Kept:
    """Engines that are kept in one pass.

    Args:
        engines: All live ones.
    """

    def __init__(self, engines: Mapping[EngineId, EngineState]) -> None:
        self._engines = engines
        self._rules: dict[str | None, _Rule] = {}
        # Those that rules do not speak of, since they have changed since or were meant singly.
        self._from_all: set[EngineId] = set()
        self._from_bounded: set[EngineId] = set()
        self._changed: dict[EngineId, EngineState] = {}

    @property
    def is_empty(self) -> bool:
        """Nothing is kept yet."""
        return not (self._rules or self._from_all or self._from_bounded)

    def holds(self, engine: EngineState, *, is_bounded: bool) -> bool:
        """Tell whether an engine is kept from requests that are bounded, or are not."""
        key = engine.id
        if key in self._from_all or (is_bounded and key in self._from_bounded):
            return True
        if not self._rules or key in self._changed:
            return False
        for model, rule in self._rules.items():
            if engine.serves(model) and (is_bounded or not _has_room(engine, rule.need_tokens)):
                return True
        return False

    def leaves_any(self, model: str | None, index: EngineIndex, *, is_bounded: bool) -> bool:
        """Tell whether any engine with a slot is left for requests of a model."""
        if not (self._rules or self._from_all or self._from_bounded):
            return len(index) > 0
        rule = self._rules.get(model)
        if rule is not None and is_bounded:
            return False
        if rule is not None:
            most = index.first(by_room)
            if most is None:
                return False
            if not _has_room(most, rule.need_tokens):
                # Nor has any other one; what has changed since was kept as it was then.
                others = self._changed.values()
                return any(index.get(e.id) and not self.holds(e, is_bounded=False) for e in others)
        return any(not self.holds(e, is_bounded=is_bounded) for e in index.walk(by_room))

    def keep_for(self, request: Request, need_tokens: int, index: EngineIndex) -> bool:
        """Keep the engines that a blocked request could run on.

        Returns:
            Whether it waits for the latency capacity of any of them, and not for room.
        """
        is_latency = request.objective.objective_class is ObjectiveClass.LATENCY
        if request.avoided:
            return self._keep_each(request, need_tokens if is_latency else _EVERYTHING)
        rule = self._rules.setdefault(request.model, _Rule())
        waits_for = need_tokens if is_latency else _EVERYTHING
        rule.need_tokens = max(rule.need_tokens, waits_for)
        rule.settled_tokens = max(rule.settled_tokens, waits_for)
        for engine in self._changed.values():
            if engine.serves(request.model):
                self._keep(engine, waits_for)
        most = index.first(by_room)
        return is_latency and most is not None and _has_room(most, need_tokens)

    def settled_tokens(self, model: str | None) -> int:
        """Return up to which need a further bounded request of a model would change nothing.

        Below 0 if none was blocked.
        """
        rule = self._rules.get(model)
        return -1 if rule is None else rule.settled_tokens

    def note_change(self, engine: EngineState) -> None:
        """Take in that an engine's account is about to change."""
        for rule in self._rules.values():
            rule.settled_tokens = -1
        if engine.id in self._changed:
            return
        if self.holds(engine, is_bounded=False):
            self._from_all.add(engine.id)
        elif self.holds(engine, is_bounded=True):
            self._from_bounded.add(engine.id)
        self._changed[engine.id] = engine

    def _keep_each(self, request: Request, waits_for: int) -> bool:
        """Keep engines one by one: those where a request has failed are not kept for it."""
        serving = [e for e in self._engines.values() if e.serves(request.model)]
        wanted = [e for e in serving if e.id not in request.avoided] or serving
        return sum(self._keep(engine, waits_for) for engine in wanted) > 0

    def _keep(self, engine: EngineState, waits_for: int) -> bool:
        has_room = _has_room(engine, waits_for)
        (self._from_bounded if has_room else self._from_all).add(engine.id)
        return has_room


def _has_room(engine: EngineState, need_tokens: int) -> bool:
    return need_tokens < _EVERYTHING and engine.fits(need_tokens)
