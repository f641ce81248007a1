"""The core's view of one engine: what runs there and how much more may."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.step_time import StepTimeModel


class RunningRequest(NamedTuple):
    """What one running attempt takes of its engine."""

    need_tokens: int
    is_latency: bool
    is_bounded: bool


@dataclass(slots=True, eq=False)
class EngineState:
    """Load of one engine as the coordinator accounts for it.

    Attributes:
        order: Position among all engines that ever joined.
        running: What each running attempt takes.
        used_tokens: Sum of the running attempts' needs.
        latency_tokens: The part of it that latency-sensitive attempts take.
        bounded_tokens: The part of that of attempts that are bounded.
        last_output_s: When the engine last said anything, or began to work.
        step_time: How long its steps take, as it says itself.
        is_watched: A timer is set that looks whether the engine has gone silent.
    """

    info: EngineInfo
    order: int = 0
    running: dict[AttemptId, RunningRequest] = field(default_factory=dict)
    used_tokens: int = 0
    latency_tokens: int = 0
    bounded_tokens: int = 0
    last_output_s: float = 0.0
    is_watched: bool = False
    step_time: StepTimeModel | None = None

    @property
    def id(self) -> EngineId:
        """The engine's id."""
        return self.info.engine

    def serves(self, model: str | None) -> bool:
        """Tell whether the engine serves a model; None is any engine's default."""
        return model is None or model in self.info.models

    @property
    def has_slot(self) -> bool:
        """Tell whether one more request may run."""
        return len(self.running) < self.info.max_requests

    @property
    def free_slots(self) -> int:
        """How many more requests may run."""
        return self.info.max_requests - len(self.running)

    def capacity_tokens(self, added: ObjectiveClass | None = None) -> int:
        """Return the token capacity now, or as it would be with a request of a class added.

        The strictest request on the engine sets it (paper, section 5.4).
        """
        if self.latency_tokens or added is ObjectiveClass.LATENCY:
            return self.info.latency_capacity_tokens
        return self.info.capacity_tokens

    def fits(self, need_tokens: int, num_requests: int = 1) -> bool:
        """Tell whether slots and KV memory allow so many more tokens and requests.

        An empty engine takes any single request: if it is too large, the engine will say so.
        """
        if not self.running and num_requests == 1:
            return self.has_slot
        if len(self.running) + num_requests > self.info.max_requests:
            return False
        return self.used_tokens + need_tokens <= self.info.capacity_tokens

    def admits(
        self,
        objective: ObjectiveClass,
        need_tokens: int,
        num_requests: int = 1,
        *,
        is_bounded: bool = True,
    ) -> bool:
        """Tell whether requests of a class may run in addition to what runs.

        The latency capacity bounds latency-sensitive work among itself, and work of other classes
        as long as latency-sensitive work runs; it does not make latency-sensitive work wait for
        throughput work to drain. What is not bounded needs room only.
        """
        if not self.fits(need_tokens, num_requests):
            return False
        if not self.running:
            is_free = num_requests == 1 or not is_bounded
            return is_free or need_tokens <= self.capacity_tokens(objective)
        if not is_bounded:
            return True
        if objective is ObjectiveClass.LATENCY:
            if not self.bounded_tokens and num_requests == 1:
                return True
            return self.bounded_tokens + need_tokens <= self.info.latency_capacity_tokens
        return self.used_tokens + need_tokens <= self.capacity_tokens()

    def add(
        self,
        attempt: AttemptId,
        need_tokens: int,
        *,
        is_latency: bool,
        is_bounded: bool = True,
        now_s: float,
    ) -> None:
        """Account for an attempt that starts here."""
        if not self.running:
            self.last_output_s = now_s  # time without work is not silence
        self.running[attempt] = RunningRequest(need_tokens, is_latency, is_latency and is_bounded)
        self.used_tokens += need_tokens
        if is_latency:
            self.latency_tokens += need_tokens
            self.bounded_tokens += need_tokens if is_bounded else 0

    def remove(self, attempt: AttemptId) -> None:
        """Account for an attempt that ended here."""
        taken = self.running.pop(attempt)
        self.used_tokens -= taken.need_tokens
        if taken.is_latency:
            self.latency_tokens -= taken.need_tokens
        if taken.is_bounded:
            self.bounded_tokens -= taken.need_tokens
