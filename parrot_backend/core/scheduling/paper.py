"""Policy ``paper``: Algorithm 1 of the paper (section 5.4).

What it does: for a request of a task group, one engine for the whole group; else, if queued
requests share its prefix, one engine for all of those; else, if engines hold its prefix, one of
those; and if none of this gave an engine, any engine. ``find_engine`` takes the engine that loses
the least token capacity by it; ties go to the one with the most room, then to the oldest.

Intent: equal objectives together, shared prefixes together.

Inputs: task groups and prefixes of the queue, resident prefixes, token accounts of the engines.

Limits: a group or set that fits on no single engine is placed request by request, first where its
prefix is; the paper does not say what to do then. A prefix that a group shares within itself is
counted once for each member. Upstream's published code takes the engine with the *least* room.
"""

from __future__ import annotations

from collections.abc import Sequence

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import TaskGroupId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.placement import ClusterView, Placement


class PaperPlacement:
    """Algorithm 1."""

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place the request as the module says."""
        if request.objective.group is not None:
            placements = self._place_group(request.objective.group, view)
        else:
            placements = self._place_sharing(request, view)
        return placements or self._place_alone(request, view)

    def _place_group(self, group: TaskGroupId, view: ClusterView) -> list[Placement]:
        # Looking at the members of a group that is too large anyway would cost its size each time.
        slots = max((engine.free_slots for engine in view.free), default=0)
        if view.queue.group_size(group) > slots:
            return []
        members = view.queue.group_members(group)
        engine = find_engine(members, view.candidates(members), view)
        reason = f"one engine for the {len(members)} ready requests of task group {group}"
        return [] if engine is None else [Placement(m, engine.id, reason) for m in members]

    def _place_sharing(self, request: Request, view: ClusterView) -> list[Placement]:
        sharing, tokens = view.queue.sharing_prefix(request, view.max_shared)
        # Others in its place would be bound by its class, or it by theirs.
        own = _bound_by(request)
        sharing = [r for r in sharing if _bound_by(r) == own]
        if len(sharing) < 2:
            return []
        engine = find_engine(sharing, view.candidates(sharing), view, tokens)
        reason = f"{len(sharing)} queued requests share a prefix of about {tokens} tokens"
        return [] if engine is None else [Placement(r, engine.id, reason) for r in sharing]

    def _place_alone(self, request: Request, view: ClusterView) -> list[Placement]:
        engines = view.candidates([request])
        holding = set(view.prefixes.engines_with(request.sharing))
        engine = find_engine([request], [e for e in engines if e.id in holding], view)
        if engine is not None:
            tokens = view.prefixes.resident_tokens(engine.id, request.sharing)
            return [Placement(request, engine.id, f"holds a prefix of about {tokens} tokens")]
        engine = find_engine([request], engines, view)
        if engine is None:
            return []
        reason = f"least capacity lost, then most room, of {len(engines)} engines"
        return [Placement(request, engine.id, reason)]


def _bound_by(request: Request) -> tuple[ObjectiveClass, bool]:
    return request.objective.objective_class, request.objective.is_bounded


def _is_bounded(request: Request, view: ClusterView) -> bool:
    """Tell whether a request keeps to the latency capacity.

    What is old needs room only, unless it wants its tokens quickly itself: while somebody is always
    waited for, an engine may never be down to that capacity.
    """
    objective = request.objective
    is_latency = objective.objective_class is ObjectiveClass.LATENCY
    return objective.is_bounded and (is_latency or not view.queue.is_old(request))


def find_engine(
    requests: Sequence[Request],
    engines: Sequence[EngineState],
    view: ClusterView,
    shared_tokens: int = 0,
) -> EngineState | None:
    """Return the engine that takes all requests with the least negative impact, or None."""
    strictest = min(request.objective.objective_class for request in requests)
    is_bounded = any(_is_bounded(request, view) for request in requests)
    best: EngineState | None = None
    best_score = (0, 0)
    for engine in engines:
        need = view.need_tokens(engine, requests, shared_tokens)
        if not engine.admits(strictest, need, len(requests), is_bounded=is_bounded):
            continue
        after = engine.capacity_tokens(strictest)
        score = (engine.capacity_tokens() - after, -(after - engine.used_tokens - need))
        if best is None or score < best_score:
            best, best_score = engine, score
    return best
