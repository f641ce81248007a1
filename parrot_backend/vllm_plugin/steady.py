"""Steps that need no plan: everybody decodes on equal terms, and nobody waits."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.pacing import StepPlan
from parrot_backend.core.request_class import RequestClass
from parrot_backend.vllm_compat.seams import CoreRequest, CoreSeam

#: After so many steps there is a plan again: times of steps are learnt, and pins expire.
MAX_STEPS = 7


class SteadyDecoding:
    """Tells when the next step would be planned like the one before.

    Most steps of most engines only decode. To plan each of them would cost more than vLLM's own
    scheduling does, and change nothing.

    Args:
        core: vLLM's scheduler.
    """

    def __init__(self, core: CoreSeam) -> None:
        self._core = core
        self._num_left = 0
        self._num_running = 0

    def interrupt(self) -> None:
        """Something has changed: the next step needs a plan."""
        self._num_left = 0

    def planned(self, plan: StepPlan[CoreRequest]) -> None:
        """Note the plan of a step: those after it may be like it."""
        is_steady = (
            not plan.held
            and self._core.nobody_waits()
            and _is_alike(plan.order)
            and all(request.remaining_tokens <= 1 for request in plan.order)
        )
        self._num_left = MAX_STEPS if is_steady else 0
        self._num_running = len(plan.order)

    def goes_on(self) -> bool:
        """Tell whether the next step needs no plan. To be asked once for each step."""
        if not self._num_left or not self._core.nobody_waits():
            return False
        if self._core.pool.num_free() < self._num_running:
            return False  # each may need a block: pins may have to give some
        self._num_left -= 1
        return True


def _is_alike(order: Iterable[CoreRequest]) -> bool:
    """Tell whether pacing could hold none of them: of one class, or all waited for."""
    classes = {request.request_class for request in order}
    if len(classes) <= 1:
        return True
    has_target = any(request.tpot_s is not None for request in order)
    return max(classes) <= RequestClass.TASK_GROUP and not has_target
