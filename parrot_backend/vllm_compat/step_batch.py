"""The batch of a step as attention backends see it. Does not import vLLM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class StepBatch:
    """The batch of one step, as a backend sees it.

    Attributes:
        block_table: [B, P] physical ids of pages; beyond a request's length they mean nothing.
        query_start: [B + 1] where each request's query tokens begin; they are the last of it.
        seq_lens: [B] tokens with KV, those of this step included.
    """

    block_table: Ints
    query_start: Ints
    seq_lens: Ints
