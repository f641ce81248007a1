"""The core's view of one engine: what runs there and how much more may."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_load import AttemptLoad, EngineLoad, Outlook
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.core.working_set import WorkingSet


class RunningRequest(NamedTuple):
    """What one running attempt takes of its engine.

    ``chain``: the prefixes it holds, where the working set is counted; and ``full_tokens``, what it
    takes of the engine if nobody shares them.
    """

    need_tokens: int
    is_latency: bool
    is_bounded: bool
    chain: PrefixChain = ()
    full_tokens: int = 0


@dataclass(slots=True, eq=False)
class EngineState:
    """Load of one engine as the coordinator accounts for it.

    Attributes:
        id: The engine's id.
        order: Position among all engines that ever joined.
        running: What each running attempt takes.
        used_tokens: Sum of the running attempts' needs.
        latency_tokens: The part of it that latency-sensitive attempts take.
        bounded_tokens: The part of that of attempts that are bounded.
        full_tokens: Sum of what they would take if nobody shared anything.
        last_output_s: When the engine last said anything, or began to work.
        step_time: How long its steps take, as it says itself.
        is_watched: A timer is set that looks whether the engine has gone silent.
        working_set: Which prefixes are in use there, if room is counted by them.
        load: What it has to do, weighed as ``cost`` says.
    """

    info: EngineInfo
    order: int = 0
    running: dict[AttemptId, RunningRequest] = field(default_factory=dict)
    used_tokens: int = 0
    latency_tokens: int = 0
    bounded_tokens: int = 0
    full_tokens: int = 0
    last_output_s: float = 0.0
    is_watched: bool = False
    step_time: StepTimeModel | None = None
    working_set: WorkingSet | None = None
    id: EngineId = field(init=False)
    load: EngineLoad = field(init=False)
    cost: InitVar[CostConfig | None] = None

    def __post_init__(self, cost: CostConfig | None) -> None:
        self.id = self.info.engine
        self.load = EngineLoad(cost or CostConfig(), self.info.capacity_tokens)

    @property
    def outlook(self) -> Outlook:
        """What one more request would meet here."""
        load = self.load
        known = load.known
        if known is not None and known.model is (self.step_time or load.config.step_time):
            return known
        return load.outlook(self.step_time)

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
        running, info = len(self.running), self.info
        if not running and num_requests == 1:
            return info.max_requests > 0
        if running + num_requests > info.max_requests:
            return False
        return self.used_tokens + need_tokens <= info.capacity_tokens

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
        load: AttemptLoad | None = None,
        chain: PrefixChain = (),
    ) -> None:
        """Account for an attempt that starts here.

        Args:
            attempt: Its id.
            need_tokens: KV tokens it adds to those in use; see ``added_tokens``.
            is_latency: It is latency-sensitive.
            is_bounded: It keeps to the latency capacity.
            now_s: The time.
            load: What it makes the engine do, if that is followed.
            chain: The prefixes of its prompt.
        """
        if not self.running:
            self.last_output_s = now_s  # time without work is not silence
        shared_tokens = 0
        if self.working_set is None:
            chain = ()
        else:
            shared_tokens = self.working_set.shared_tokens(chain)
            self.working_set.enter(chain)
        bounds = is_latency and is_bounded
        self.running[attempt] = RunningRequest(
            need_tokens, is_latency, bounds, chain, need_tokens + shared_tokens
        )
        if load is not None:
            self.load.add(attempt, load, self.step_time, now_s)
        self.used_tokens += need_tokens
        self.full_tokens += need_tokens + shared_tokens
        self._note_shared()
        if is_latency:
            self.latency_tokens += need_tokens
            self.bounded_tokens += need_tokens if is_bounded else 0

    def remove(self, attempt: AttemptId) -> None:
        """Account for an attempt that ended here."""
        taken = self.running.pop(attempt)
        if self.working_set is None:
            self.used_tokens -= taken.need_tokens
        else:
            self.used_tokens -= taken.full_tokens - self.working_set.leave(taken.chain)
        self.full_tokens -= taken.full_tokens
        self._note_shared()
        if taken.is_latency:
            self.latency_tokens -= taken.need_tokens
        if taken.is_bounded:
            self.bounded_tokens -= taken.need_tokens
        self.load.remove(attempt, self.last_output_s)

    def read_tokens(self, request: Request, context_tokens: int, mates_tokens: int = 0) -> int:
        """Return the KV tokens that a request would make each step read.

        Args:
            request: It would run here.
            context_tokens: What it reads if it shares nothing.
            mates_tokens: What it shares with requests that are to run here, too.
        """
        if self.info.repeated_read >= 1.0:
            return context_tokens
        shared_tokens = mates_tokens
        if self.working_set is not None:
            shared_tokens = max(mates_tokens, self.working_set.shared_tokens(request.prefixes))
        return max(0, context_tokens - int((1.0 - self.info.repeated_read) * shared_tokens))

    def _note_shared(self) -> None:
        if self.working_set is not None and self.info.repeated_read < 1.0:
            shared_tokens = self.full_tokens - self.used_tokens
            self.load.save(int((1.0 - self.info.repeated_read) * shared_tokens))

    def added_tokens(
        self, request: Request, resident_tokens: int, need_tokens: int | None = None
    ) -> int:
        """Return the KV tokens that a request would add to those in use.

        Args:
            request: It would run here.
            resident_tokens: What the engine holds of its prompt, in use or not.
            need_tokens: What it needs in all, if that has been asked for.
        """
        in_use = resident_tokens
        if self.working_set is not None:
            in_use = self.working_set.shared_tokens(request.prefixes)
        if need_tokens is None:
            need_tokens = request.need_tokens
        return need_tokens - in_use if need_tokens > in_use else 0
