"""Policy ``paper``: Algorithm 1 of the paper (section 5.4).

What it does: for a request of a task group, one engine for the whole group; else, if queued
requests share its prefix, one engine for all of those; else, if engines hold its prefix, one of
those; and if none of this gave an engine, any engine. ``EngineSearch`` takes the engine that loses
the least token capacity by it; ties go to the one with the most room, then to the oldest.

Intent: equal objectives together, shared prefixes together.

Inputs: task groups and prefixes of the queue, resident prefixes, token accounts of the engines.

Limits: a group or set that fits on no single engine is placed request by request, first where its
prefix is; the paper does not say what to do then. A prefix that a group shares within itself is
counted once for each member. Upstream's published code takes the engine with the *least* room.
"""

from __future__ import annotations

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.ids import TaskGroupId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.engine_index import by_slots
from parrot_backend.core.scheduling.engine_search import EngineSearch
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
        if view.queue.group_size(group) > _most_slots(view):
            return []
        members = view.queue.group_members(group)
        engine = EngineSearch(members, view).run()
        reason = f"one engine for the {len(members)} ready requests of task group {group}"
        return [] if engine is None else [Placement(m, engine.id, reason) for m in members]

    def _place_sharing(self, request: Request, view: ClusterView) -> list[Placement]:
        if _most_slots(view) < 2:
            return []
        sharing, tokens = view.queue.sharing_prefix(request, view.max_shared)
        if len(sharing) < 2:
            return []
        # Others in its place would be bound by its class, or it by theirs.
        own = _bound_by(request)
        sharing = [r for r in sharing if _bound_by(r) == own]
        if len(sharing) < 2:
            return []
        engine = EngineSearch(sharing, view, tokens).run()
        reason = f"{len(sharing)} queued requests share a prefix of about {tokens} tokens"
        return [] if engine is None else [Placement(r, engine.id, reason) for r in sharing]

    def _place_alone(self, request: Request, view: ClusterView) -> list[Placement]:
        holding = view.prefixes.longest_held(request.sharing)
        if holding:
            engine = EngineSearch([request], view, among=holding).run()
            if engine is not None:
                tokens = view.prefixes.resident_tokens(engine.id, request.sharing)
                return [Placement(request, engine.id, f"holds a prefix of about {tokens} tokens")]
        engine = EngineSearch([request], view).run()
        if engine is None:
            return []
        return [Placement(request, engine.id, "least capacity lost, then most room")]


def _most_slots(view: ClusterView) -> int:
    most = next(view.free.walk(by_slots), None)
    return 0 if most is None else most.free_slots


def _bound_by(request: Request) -> tuple[ObjectiveClass, bool]:
    return request.objective.objective_class, request.objective.is_bounded
