"""The plan of a step, made by native code.

It does what prefixes.py, folding.py and work.py do, with the same results, in a tenth of the time:
numpy spends most of a plan on starting some hundred operations on small arrays.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parrot_backend.kernels.compiling import Unit, compile_library, open_library
from parrot_backend.kernels.costs import PlanCosts
from parrot_backend.kernels.prefixes import Int32Array
from parrot_backend.kernels.work import WorkPlan

_SOURCE = Path(__file__).parent / "native"


@cache
def load_library() -> ctypes.CDLL:
    """Return the library, built if it was not.

    Raises:
        CompilerUnavailable: It cannot be built or loaded here.
    """
    headers = sorted(_SOURCE.glob("*.h"))
    library = open_library(compile_library("plan", [Unit(_SOURCE / "plan.cpp")], headers=headers))
    library.parrot_plan_new.restype = ctypes.c_void_p
    library.parrot_plan_new.argtypes = []
    library.parrot_plan_free.restype = None
    library.parrot_plan_free.argtypes = [ctypes.c_void_p]
    library.parrot_plan_make.restype = ctypes.c_int32
    library.parrot_plan_make.argtypes = [ctypes.c_void_p] * 8
    library.parrot_plan_copy.restype = None
    library.parrot_plan_copy.argtypes = [ctypes.c_void_p] * 2
    return library


class NativePlanner:
    """Makes plans in memory of its own; not for several threads at once.

    Args:
        page_size: Tokens of a KV page.
        num_workers: Into how many stretches of equal cost to cut the work.
        costs: What parts of the work cost, and limits.

    Raises:
        CompilerUnavailable: The library cannot be built here.
    """

    def __init__(self, page_size: int, num_workers: int, costs: PlanCosts) -> None:
        self._library = load_library()
        self._workspace: int | None = self._library.parrot_plan_new()
        if self._workspace is None:
            raise MemoryError
        self._costs = np.array([costs.kv_token, costs.row, costs.item, costs.partial])
        self._limits = np.array(
            [0, 0, 0, page_size, num_workers, costs.max_rows, costs.min_chunk_tokens], np.int64
        )
        self._sizes = np.zeros(6, np.int64)
        self._fixed = (_address(self._costs), _address(self._limits), _address(self._sizes))

    def __del__(self) -> None:
        """Free the memory."""
        if getattr(self, "_workspace", None) is not None:
            self._library.parrot_plan_free(self._workspace)

    def plan(
        self,
        block_table: Int32Array,
        query_start: Int32Array,
        seq_lens: Int32Array,
        may_share: npt.NDArray[np.bool_] | None,
    ) -> WorkPlan | None:
        """Return the plan of a step; None if lengths and table do not fit together.

        Args:
            block_table: [B, P], with its last axis contiguous.
            query_start: [B + 1] Contiguous.
            seq_lens: [B] Contiguous.
            may_share: [B] Contiguous.

        Raises:
            MemoryError: There is not enough.
        """
        limits = self._limits
        limits[0], limits[1] = block_table.shape
        limits[2] = block_table.strides[0] >> 2
        result = self._library.parrot_plan_make(
            self._workspace,
            _address(block_table),
            _address(query_start),
            _address(seq_lens),
            None if may_share is None else _address(may_share),
            *self._fixed,
        )
        if result == 1:
            return None
        if result:
            raise MemoryError
        return self._copied(int(limits[4]))

    def _copied(self, num_workers: int) -> WorkPlan:
        """Return the plan that the workspace holds."""
        items, rows, tokens, slots, shared_tokens, plain_tokens = self._sizes.tolist()
        lengths = (8 * items, rows, tokens, tokens + 1, slots, num_workers + 1)
        arrays = np.empty(sum(lengths), np.int32)
        self._library.parrot_plan_copy(self._workspace, _address(arrays))
        parts = []
        end = 0
        for length in lengths:
            parts.append(arrays[end : end + length])
            end += length
        return WorkPlan(
            items=parts[0].reshape(items, 8),
            tokens=parts[1],
            positions=parts[2],
            slot_ptr=parts[3],
            slots=parts[4],
            worker_ptr=parts[5],
            num_slots=slots,
            num_tokens=tokens,
            shared_tokens=shared_tokens,
            plain_tokens=plain_tokens,
            page_size=int(self._limits[3]),
        )


def _address(array: npt.NDArray[np.generic]) -> int:
    """Return where an array's first element is."""
    address: int = array.__array_interface__["data"][0]
    return address
