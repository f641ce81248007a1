"""vLLM's Triton attention backend, to build on. Imports vLLM, and Triton."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

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
    "extended_metadata",
]


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
