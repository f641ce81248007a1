"""Which waiting request goes first, and whether it may begin now.

Age counts from when a request last began to wait, so that what has run for long and was preempted
is not taken for one that nobody served. What was let in for its age is not preempted again.
"""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.pacing import StepPlan
from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam
from parrot_backend.vllm_plugin.hints import RequestClass
from parrot_backend.vllm_plugin.options import PluginOptions
from parrot_backend.vllm_plugin.room import RoomMaker


class Admission:
    """The door to the batch, for one step after the other.

    Args:
        core: vLLM's scheduler.
        room: Knows who was preempted, and what is spare.
        options: Which parts are on.
    """

    def __init__(self, core: CoreSeam, room: RoomMaker, options: PluginOptions) -> None:
        self._core = core
        self._room = room
        self.options = options
        self._plan: StepPlan[CoreRequest] = StepPlan([], [], None, RequestClass.FILL)
        self._now_s = 0.0

    @property
    def num_held(self) -> int:
        """Running requests that sit out the present step."""
        return len(self._plan.held)

    def begin_step(self, plan: StepPlan[CoreRequest]) -> None:
        """Take in what was planned for a step."""
        self._plan = plan

    def set_time(self, now_s: float) -> None:
        """Take in the time of a step."""
        self._now_s = now_s

    def is_old(self, request: CoreRequest) -> bool:
        """Tell whether a request has waited for too long; fills never have."""
        if request.request_class is RequestClass.FILL:
            return False
        return self._now_s - request.waits_since_s > self.options.max_wait_s

    def must_begin(self, head: CoreRequest) -> bool:
        """Tell whether the next waiting request has waited for too long, and could begin."""
        return (
            head.request_class is not RequestClass.LATENCY
            and self.is_old(head)
            and self._room.has_room_for(head)
        )

    def group_comes(self, heads: Iterable[CoreRequest]) -> bool:
        """Tell whether a member of a task group goes next, and could begin."""
        return any(
            head.request_class is RequestClass.TASK_GROUP and self._room.has_room_for(head)
            for head in heads
        )

    def precedes(self, hinted: CoreRequest, unhinted: CoreRequest) -> bool:
        """Tell which of two waiting requests goes first: old ones, then by class and arrival."""
        hinted_is_old, unhinted_is_old = self.is_old(hinted), self.is_old(unhinted)
        if self.options.order and hinted_is_old != unhinted_is_old:
            return hinted_is_old
        if hinted_is_old or (
            not self.options.order and hinted.request_class is not RequestClass.FILL
        ):
            return bool(hinted.arrival_s <= unhinted.arrival_s)
        key = (hinted.request_class, hinted.arrival_s)
        return bool(key <= (unhinted.request_class, unhinted.arrival_s))

    def may_begin(self, request: CoreRequest) -> bool:
        """Tell whether the next waiting request may begin in this step."""
        if not (self._plan.order or self._plan.held or self._core.running_requests()):
            return True  # or nothing would ever happen
        if self._room.was_preempted(request):
            return False  # what took its place has just begun
        if request.request_class is RequestClass.LATENCY:
            return True
        if self.is_old(request):
            self._room.spare(request)
            return True
        if request.request_class is RequestClass.FILL and not self._room.is_spare_for(request):
            return False
        return bool(request.request_class <= self._plan.admits)
