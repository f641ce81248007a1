"""vLLM's attention backend for CPUs, to build on. Imports vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)

__all__ = [
    "CPUAttentionBackend",
    "CPUAttentionBackendImpl",
    "CPUAttentionMetadata",
    "CPUAttentionMetadataBuilder",
    "ExtendedMetadata",
    "extended_metadata",
]


@dataclass
class ExtendedMetadata(CPUAttentionMetadata):
    """vLLM's metadata of a step that is not vLLM's alone.

    Attributes:
        shared: How ours is computed; for whoever made it.
        rest: Metadata of the requests that vLLM computes; None if there are none.
    """

    shared: Any = None
    rest: CPUAttentionMetadata | None = None


def extended_metadata(
    common: Any, shared: object, rest: CPUAttentionMetadata | None
) -> ExtendedMetadata:
    """Return the metadata of a step.

    Args:
        common: vLLM's ``CommonAttentionMetadata`` of the whole batch.
        shared: See ``ExtendedMetadata``.
        rest: See ``ExtendedMetadata``.
    """
    return ExtendedMetadata(
        num_actual_tokens=common.num_actual_tokens,
        max_query_len=common.max_query_len,
        query_start_loc=common.query_start_loc,
        max_seq_len=common.max_seq_len,
        seq_lens=common.seq_lens,
        block_table=common.block_table_tensor,
        slot_mapping=common.slot_mapping,
        scheduler_metadata=None,
        shared=shared,
        rest=rest,
    )
