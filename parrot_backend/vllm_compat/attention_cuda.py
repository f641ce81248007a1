"""vLLM's Triton attention backend, to build on. Imports vLLM, and Triton."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from vllm.config import CUDAGraphMode
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadata,
    TritonAttentionMetadataBuilder,
)

__all__ = [
    "AttentionCGSupport",
    "ExtendedMetadata",
    "TritonAttentionBackend",
    "TritonAttentionImpl",
    "TritonAttentionMetadata",
    "TritonAttentionMetadataBuilder",
    "captures_decodes",
    "extended_metadata",
    "is_decode_of_one",
]


def captures_decodes(vllm_config: Any) -> bool:
    """Tell whether vLLM captures whole decode steps; asked once backends have been asked."""
    mode = vllm_config.compilation_config.cudagraph_mode
    return mode is not None and mode.decode_mode() == CUDAGraphMode.FULL


def is_decode_of_one(common: Any) -> bool:
    """Tell whether each request of a batch has one query token."""
    return bool(common.max_query_len == 1 and common.num_reqs == common.num_actual_tokens)


@dataclass
class ExtendedMetadata(TritonAttentionMetadata):
    """vLLM's metadata of a step that is not vLLM's alone; vLLM could still compute all of it.

    Attributes:
        shared: How ours is computed; for whoever made it.
        rest: Metadata of the requests that vLLM computes; None if there are none.
    """

    shared: Any = None
    rest: TritonAttentionMetadata | None = None


def extended_metadata(
    stock: TritonAttentionMetadata, shared: object, rest: TritonAttentionMetadata | None
) -> ExtendedMetadata:
    """Return the metadata of a step.

    Args:
        stock: vLLM's own of the whole batch.
        shared: See ``ExtendedMetadata``.
        rest: See ``ExtendedMetadata``.
    """
    given = {field.name: getattr(stock, field.name) for field in fields(stock)}
    return ExtendedMetadata(**given, shared=shared, rest=rest)
