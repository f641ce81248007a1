"""Block tables of vLLM's model runner as the host knows them, so that no device is waited for.

vLLM's second model runner hands block ids to the device and keeps none. ``watch`` puts a subclass
in the place of its ``BlockTables``, which writes each id into an array as well. Imports vLLM, and
only in ``watch``.
"""

from __future__ import annotations

import importlib
import logging
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from parrot_backend.vllm_compat.step_batch import Ints

logger = logging.getLogger(__name__)

#: What is used of vLLM's class, besides how it is called.
_NAMES = ("__init__", "append_block_ids")


class HostTables(Protocol):
    """Where block tables may be found on the host."""

    def rows_of(self, common: Any) -> Ints | None:
        """Return [B, P] of a batch; None if it has to be read from the device.

        P may be less than on the device: no request has more pages.
        """
        ...


class TableMirror:
    """The block table of one KV cache group.

    Args:
        shape: Requests that the runner keeps at once, and pages of each.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._rows: Ints = np.zeros(shape, np.int32)
        self._num_pages: Ints = np.zeros(shape[0], np.int32)

    def write(self, request: int, start: int, pages: Sequence[int]) -> None:
        """Write pages of a request from one of them on."""
        self._rows[request, start : start + len(pages)] = pages
        self._num_pages[request] = start + len(pages)

    def rows(self, requests: Ints, count: int) -> Ints:
        """Return [count, most pages of one]: rows of some requests, and zeros for padding."""
        # Tables are as wide as the longest text that a model takes; few texts are.
        num_pages = int(self._num_pages[requests].max(initial=1))
        found = np.zeros((count, num_pages), np.int32)
        found[: len(requests)] = self._rows[requests, :num_pages]
        return found


class MirroredTables:
    """Mirrors, by the address of the device's table that batches are given."""

    def __init__(self) -> None:
        self._mirrors: weakref.WeakValueDictionary[int, TableMirror] = weakref.WeakValueDictionary()

    def add(self, table: Any) -> TableMirror:
        """Return the mirror of a device's table; whoever keeps it keeps it up."""
        mirror = TableMirror(tuple(table.shape))
        self._mirrors[table.data_ptr()] = mirror
        return mirror

    def rows_of(self, common: Any) -> Ints | None:
        """See ``HostTables``."""
        table = common.block_table_tensor
        mirror = self._mirrors.get(table.data_ptr())
        if mirror is None or common.req_idx is None:
            return None
        return mirror.rows(common.req_idx, common.num_reqs)


_mirrored = MirroredTables()


def watch() -> HostTables | None:
    """Mirror the block tables of runners that are made from now on. Idempotent.

    Returns:
        Where to find them; None, with a warning, if this vLLM has no such place. The first model
        runner has none: its batches are not among these, and are read from the device.
    """
    runner: Any = importlib.import_module("vllm.v1.worker.gpu.model_runner")
    known = getattr(runner, "BlockTables", None)
    missing = [name for name in _NAMES if not callable(getattr(known, name, None))]
    if missing:
        logger.warning("block tables are read back from the device: vLLM lacks %s", missing)
        return None
    if not getattr(known, "_is_mirrored", False):
        runner.BlockTables = _mirroring(known)
    return _mirrored


def _mirroring(known: Any) -> Any:
    """Return a subclass of vLLM's ``BlockTables`` that keeps mirrors."""

    class MirroringBlockTables(known):  # type: ignore[misc]  # its base is known at run time only
        _is_mirrored = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._parrot_mirrors = [_mirrored.add(table) for table in self.input_block_tables]

        def append_block_ids(
            self, req_index: int, new_block_ids: tuple[list[int], ...], overwrite: bool
        ) -> None:
            starts = [0 if overwrite else int(row[req_index]) for row in self.num_blocks.np]
            super().append_block_ids(req_index, new_block_ids, overwrite)
            null = self.redirect_writes_to_null_block
            for mirror, start, pages in zip(
                self._parrot_mirrors, starts, new_block_ids, strict=True
            ):
                mirror.write(req_index, start, [0] * len(pages) if null else pages)

    return MirroringBlockTables
