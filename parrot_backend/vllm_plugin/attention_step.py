"""Who shares reads of KV in a step: decided once for all layers, from the block table alone.

Where our kernel is the faster one in any case, it computes whole steps. Elsewhere it computes those
who share, and requests that compute a part of their prompt are left to vLLM's own kernel: they have
hundreds of query tokens, so that arithmetic bounds them and not reads, and nothing is gained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parrot_backend.kernels import PlanCosts, Planner, WorkPlan
from parrot_backend.kernels.support import why_no_gain
from parrot_backend.vllm_compat.step_batch import Ints, StepBatch

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]

#: Says what of a plan a device has no room for; None if all of it fits.
WhyTooLarge = Callable[[WorkPlan], str | None]

#: A request with more query tokens computes its prompt. Drafts of speculative decoding have fewer.
MAX_QUERY_TOKENS = 16

#: Fewer reads are not worth sharing: no step is noticeably shorter, and how outputs are rounded
#: would depend on who runs beside whom.
LEAST_SAVING_TOKENS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class SharedStep:
    """How a step is computed.

    Attributes:
        work: The plan, over ``batch``.
        batch: The requests that it covers.
        requests: Which of the whole batch these are; None for all.
        tokens: Their query tokens in the whole batch; None for all.
        rest: The other requests; None if there are none.
        rest_tokens: Their query tokens.
        kv_tokens_saved: Tokens of KV that a layer need not read again.
    """

    work: WorkPlan
    batch: StepBatch
    requests: IntArray | None
    tokens: IntArray | None
    rest: IntArray | None
    rest_tokens: IntArray | None
    kv_tokens_saved: int


class StepSharing:
    """Plans steps, one after the other.

    Args:
        page_tokens: Tokens of a KV page.
        num_workers: Threads or other units that run a plan side by side.
        costs: What parts of the work cost on this device.
        takes_all: Our kernel computes all steps, shared or not.
        least_saving_tokens: Steps that save fewer tokens of KV do not share.
        why_too_large: What a plan must fit; one that shares nothing always fits.
    """

    def __init__(
        self,
        page_tokens: int,
        num_workers: int,
        costs: PlanCosts,
        *,
        takes_all: bool = False,
        least_saving_tokens: int = LEAST_SAVING_TOKENS,
        why_too_large: WhyTooLarge = lambda work: None,
    ) -> None:
        self._page_tokens = page_tokens
        self._takes_all = takes_all
        self._least_saving_tokens = least_saving_tokens
        self._costs = costs
        self._planner = Planner(page_tokens, num_workers, costs)
        self._why_too_large = why_too_large
        self._has_warned = False

    def plan(self, batch: StepBatch) -> SharedStep | None:
        """Plan a step; None if vLLM's own kernel is to compute all of it."""
        if self._takes_all:
            return self.plan_whole(batch)
        if len(batch.seq_lens) < 2:
            return None
        lengths = np.diff(batch.query_start)
        members = self._members(batch, lengths)
        if members.sum() < 2:
            return None
        if members.all():
            work = self._planned(batch)
            return None if work is None else _whole(batch, work)
        chosen, rest = np.flatnonzero(members), np.flatnonzero(~members)
        inside = np.repeat(members, lengths)
        starts = np.concatenate(([0], np.cumsum(lengths[chosen]))).astype(np.int32)
        part = StepBatch(batch.block_table[chosen], starts, batch.seq_lens[chosen])
        work = self._planned(part)
        if work is None:
            return None
        return SharedStep(
            work,
            part,
            requests=chosen,
            tokens=np.flatnonzero(inside),
            rest=rest,
            rest_tokens=np.flatnonzero(~inside),
            kv_tokens_saved=_saved(work),
        )

    def plan_whole(self, batch: StepBatch, *, may_share: bool = True) -> SharedStep:
        """Plan a step for our kernel alone, whatever that saves.

        Args:
            batch: The step; requests without query tokens are padding.
            may_share: Whether reads are shared where that saves enough of them.
        """
        work = self._planner.plan(*_arrays(batch)) if may_share else self._unshared(batch)
        saved = _saved(work)
        if saved and (saved < self._least_saving_tokens or self._is_too_large(work)):
            work = self._unshared(batch)
        return _whole(batch, work)

    def _members(self, batch: StepBatch, lengths: IntArray) -> npt.NDArray[np.bool_]:
        """Tell for each request whether it decodes, and its first page is one of another, too."""
        decodes = (lengths > 0) & (lengths <= MAX_QUERY_TOKENS)
        decodes &= batch.seq_lens - lengths >= self._page_tokens
        first = batch.block_table[:, 0]
        ranked = np.sort(first[decodes])
        return decodes & np.isin(first, ranked[1:][ranked[1:] == ranked[:-1]])

    def _planned(self, batch: StepBatch) -> WorkPlan | None:
        work = self._planner.plan(*_arrays(batch))
        if _saved(work) < self._least_saving_tokens or why_no_gain(work, self._costs) is not None:
            return None
        return None if self._is_too_large(work) else work

    def _unshared(self, batch: StepBatch) -> WorkPlan:
        nobody = np.zeros(len(batch.seq_lens), np.bool_)
        return self._planner.plan(*_arrays(batch), hint=nobody)

    def _is_too_large(self, work: WorkPlan) -> bool:
        reason = self._why_too_large(work)
        if reason is not None and not self._has_warned:
            self._has_warned = True
            logger.warning("a step shares no reads, and others like it will not: %s", reason)
        return reason is not None


def _arrays(batch: StepBatch) -> tuple[Ints, Ints, Ints]:
    return batch.block_table, batch.query_start, batch.seq_lens


def _whole(batch: StepBatch, work: WorkPlan) -> SharedStep:
    return SharedStep(work, batch, None, None, None, None, kv_tokens_saved=_saved(work))


def _saved(work: WorkPlan) -> int:
    return work.plain_tokens - work.shared_tokens
