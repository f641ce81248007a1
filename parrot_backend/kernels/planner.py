"""Plans the attention of each step."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from parrot_backend.kernels.batch import Batch
from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.errors import AttentionError, CompilerUnavailable
from parrot_backend.kernels.folding import fold_prefixes
from parrot_backend.kernels.native_plan import NativePlanner
from parrot_backend.kernels.prefixes import (
    Int32Array,
    IntArray,
    check_integers,
    check_table,
    find_prefixes,
)
from parrot_backend.kernels.work import WorkPlan, cut_tiles, lay_tiles

_log = logging.getLogger(__name__)


class Planner:
    """Makes the plan of each step: finds prefixes, drops those that do not pay, cuts the work.

    Nothing of a step is kept for the next. To know that pages are still those of the step before,
    each would have to be read; a new tree costs no more than that, and is never stale.

    Plans are made by native code, built on first use. Where there is no compiler, numpy makes the
    same plans about ten times slower, and a warning says so. Not for several threads at once.

    Args:
        page_size: Tokens of a KV page.
        num_workers: Into how many stretches of equal cost to cut the work.
        costs: What parts of the work cost, and limits; the defaults are a GPU's.
        is_native: False: numpy in any case, which is the specification.

    Raises:
        AttentionError: An argument is out of its range.
    """

    def __init__(
        self,
        page_size: int,
        num_workers: int,
        costs: PlanCosts | None = None,
        *,
        is_native: bool = True,
    ) -> None:
        if page_size < 1 or num_workers < 1:
            raise AttentionError("page_size and num_workers must be at least 1")
        self.page_size = page_size
        self.num_workers = num_workers
        self.costs = costs or PlanCosts()
        self._native = self._start_native() if is_native else None

    @property
    def is_native(self) -> bool:
        """Whether native code makes the plans."""
        return self._native is not None

    def _start_native(self) -> NativePlanner | None:
        """Return the native planner; None, with a warning, if it cannot be built here."""
        try:
            return NativePlanner(self.page_size, self.num_workers, self.costs)
        except CompilerUnavailable as error:
            _log.warning("attention is planned by numpy, about ten times slower: %s", error)
            return None

    def plan(
        self,
        block_table: IntArray,
        query_start: IntArray,
        seq_lens: IntArray,
        *,
        hint: npt.NDArray[np.bool_] | None = None,
    ) -> WorkPlan:
        """Plan a step.

        All arrays are numpy's; of tensors on the CPU, ``tensor.numpy()``.

        Args:
            block_table: [B, P] Physical page ids; what lies beyond a request's pages is not read.
            query_start: [B + 1] Query tokens of request b are
                ``query_start[b] : query_start[b + 1]``, the last of its tokens.
            seq_lens: [B] Tokens of each request, query tokens included; 0 for padding.
            hint: [B] Which requests may share; pages of the others are not looked at, those of
                these are compared all the same. None: all may.

        Returns:
            The plan. Arrays that are int32, with adjacent elements, are not copied.

        Raises:
            AttentionError: An argument is out of its range, or shapes do not fit.
            TableTooNarrow: The block table has fewer columns than a request has pages.
        """
        _check_shapes(block_table, query_start, seq_lens, hint)
        block_table = _as_int32("block_table", block_table)
        query_start = _as_int32("query_start", query_start)
        seq_lens = _as_int32("seq_lens", seq_lens)
        if self._native is not None:
            may_share = None if hint is None else np.ascontiguousarray(hint)
            plan = self._native.plan(block_table, query_start, seq_lens, may_share)
            if plan is not None:
                return plan
        batch = Batch.checked(query_start, seq_lens, self.page_size)
        check_table(block_table, batch.num_pages)
        full = batch.num_full_pages if hint is None else batch.num_full_pages * hint
        tree = find_prefixes(block_table, full)
        tree = fold_prefixes(tree, batch.query_lens, self.page_size, self.costs)
        tiles = lay_tiles(tree, batch, self.costs)
        return cut_tiles(tiles, batch, self.num_workers, self.costs)


def _as_int32(name: str, array: IntArray) -> Int32Array:
    """Return an array as int32 with adjacent elements in its last axis; the same if it is that.

    Raises:
        AttentionError: A number does not fit.
    """
    if array.dtype == np.int32:
        return array if array.strides[-1] == 4 else np.ascontiguousarray(array)
    limits = np.iinfo(np.int32)
    if array.size and (array.max() > limits.max or array.min() < limits.min):
        raise AttentionError(f"{name} has numbers that do not fit 32 bits")
    return np.ascontiguousarray(array, np.int32)


def _check_shapes(
    block_table: IntArray,
    query_start: IntArray,
    seq_lens: IntArray,
    hint: npt.NDArray[np.bool_] | None,
) -> None:
    """Check shapes and types; what is in the arrays is checked where it is read.

    Raises:
        AttentionError: One is wrong.
    """
    check_integers("block_table", block_table, 2)
    check_integers("query_start", query_start, 1)
    check_integers("seq_lens", seq_lens, 1)
    num_requests = len(seq_lens)
    if len(block_table) != num_requests or len(query_start) != num_requests + 1:
        raise AttentionError(
            f"of {num_requests} requests, block_table must be [{num_requests}, P] and query_start "
            f"[{num_requests + 1}], not {[*block_table.shape]} and {[*query_start.shape]}"
        )
    if hint is not None and not (isinstance(hint, np.ndarray) and hint.dtype == np.bool_):
        raise AttentionError("hint must be a numpy array of bool")
    if hint is not None and hint.shape != (num_requests,):
        raise AttentionError(f"hint must be [{num_requests}], not {[*hint.shape]}")
