"""Plans step after step, and keeps what the last step found out as long as it holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from parrot_backend.kernels.batch import Batch
from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.folding import fold_prefixes
from parrot_backend.kernels.prefixes import IntArray, find_prefixes
from parrot_backend.kernels.work import WorkPlan, cut_tiles, lay_tiles


class Planner:
    """Makes the plan of each step.

    Args:
        page_size: Tokens of a KV page.
        num_workers: Into how many stretches of equal cost to cut the work.
        costs: What parts of the work cost, and limits.

    Raises:
        AttentionError: An argument is out of its range.
    """

    def __init__(self, page_size: int, num_workers: int, costs: PlanCosts | None = None) -> None:
        if page_size < 1 or num_workers < 1:
            raise AttentionError("page_size and num_workers must be at least 1")
        self._page_size = page_size
        self._num_workers = num_workers
        self._costs = costs or PlanCosts()

    def plan(
        self,
        block_table: IntArray,
        query_start: IntArray,
        seq_lens: IntArray,
        *,
        hint: npt.NDArray[np.bool_] | None = None,
    ) -> WorkPlan:
        """Plan a step.

        Args:
            block_table: [B, P] Physical page ids.
            query_start: [B + 1] Query tokens of request b are
                ``query_start[b] : query_start[b + 1]``.
            seq_lens: [B] Tokens of each request, query tokens included; 0 for padding.
            hint: [B] Which requests may share; the others' pages are not looked at. Pages of
                those are compared all the same. None: all may.

        Returns:
            The plan, the same as without anything kept.

        Raises:
            AttentionError: An argument is out of its range, or shapes do not fit.
            TableTooNarrow: The block table has fewer columns than a request has full pages.
        """
        batch = Batch.checked(query_start, seq_lens, self._page_size)
        full = batch.num_full_pages if hint is None else batch.num_full_pages * hint
        tree = find_prefixes(block_table, full)
        tree = fold_prefixes(tree, batch.query_lens, self._page_size, self._costs)
        tiles = lay_tiles(tree, batch, self._costs)
        return cut_tiles(tiles, batch, self._num_workers, self._costs)
