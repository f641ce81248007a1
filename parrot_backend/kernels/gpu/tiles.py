"""Device functions of the attention kernel: one tile of query rows against one tile of positions.

A tile row is a pair (query token, query head): the heads that read one KV head are packed beside
each other, so that they share every key and value. Scores are in base 2. A row that has seen no
position yet has the maximum -inf and the total 0. ``C`` is the ``Variant`` (``Constants``).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_pages(pages, strides, block_row, kv_head, start, end, C: tl.constexpr):
    """Return keys or values ``[tile_tokens, padded_dim]`` of positions from ``start``.

    By pointers (``strides`` of pages, heads, tokens) positions from ``end`` on are zero. By
    descriptor they are what the page holds. Dimensions that a head lacks are zero either way.

    Args:
        pages: Pointer to keys or values, or their descriptor.
        strides: Elements between pages, heads and tokens.
        block_row: Pointer to the page ids of a request.
        kv_head: KV head.
        start: First position; a tile that fits into a page begins at a multiple of its size.
        end: One past the last position of the item.
        C: The variant.
    """
    if C.has_descriptors:
        page = tl.load(block_row + start // C.page_size)
        box = pages.load([page, kv_head, start % C.page_size, 0])
        TOKENS: tl.constexpr = C.tile_tokens
        COLUMNS: tl.constexpr = C.padded_dim
        tile = box.reshape([TOKENS, COLUMNS])
    else:
        stride_page, stride_head, stride_token = strides
        position = start + tl.arange(0, C.tile_tokens)
        column = tl.arange(0, C.padded_dim)
        within = position < end
        if C.page_size % C.tile_tokens == 0:
            page = tl.load(block_row + start // C.page_size).to(tl.int64)
            head = pages + page * stride_page + kv_head * stride_head
            rows = head + (position % C.page_size) * stride_token
        else:
            ids = tl.load(block_row + position // C.page_size, mask=within, other=0).to(tl.int64)
            offset = (position % C.page_size) * stride_token + kv_head * stride_head
            rows = pages + ids * stride_page + offset
        mask = within[:, None]
        if C.padded_dim != C.head_dim:
            mask = mask & (column < C.head_dim)[None, :]
        tile = tl.load(rows[:, None] + column[None, :], mask=mask, other=0.0)
    return tile


@triton.jit
def as_operand(tile, dtype: tl.constexpr, C: tl.constexpr):
    """Return a tile in the dtype that is multiplied: the query's, or float32."""
    if C.upcasts:
        tile = tile.to(tl.float32)
    elif tile.dtype != dtype:
        tile = tile.to(dtype)
    return tile


@triton.jit
def scores_of(query, keys, start, seen, numbers, WHOLE: tl.constexpr, C: tl.constexpr):
    """Return base-2 scores ``[rows, tile_tokens]`` of the positions from ``start``.

    What a row has not ``seen`` (from, to) is -inf. ``WHOLE``: no row's sight ends in the tile.
    """
    seen_from, seen_to = seen
    scale, softcap = numbers
    scores = tl.dot(query, tl.trans(keys), input_precision=C.precision)
    if C.has_softcap:
        # tanh(y) = 1 - 2 / (1 + exp(2 y)), which is right at both infinities.
        grown = tl.exp2(scores * (2.0 * LOG2_E * scale / softcap))
        scores = (softcap * LOG2_E) * (1.0 - 2.0 / (1.0 + grown))
    else:
        scores = scores * (scale * LOG2_E)
    position = start + tl.arange(0, C.tile_tokens)
    if not WHOLE:
        scores = tl.where(position[None, :] < seen_to[:, None], scores, float("-inf"))
    if C.has_window:
        scores = tl.where(position[None, :] >= seen_from[:, None], scores, float("-inf"))
    return scores


@triton.jit
def accumulate(scores, values, maximum, total, output, C: tl.constexpr):
    """Add a tile to the running softmax of each row; return (maximum, total, output)."""
    new_maximum = tl.maximum(maximum, tl.max(scores, 1))
    # Of a row that has seen nothing: -inf - -inf would be no number.
    base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
    shrink = tl.exp2(maximum - base)
    weights = tl.exp2(scores - base[:, None])
    total = total * shrink + tl.sum(weights, 1)
    output = output * shrink[:, None]
    output = tl.dot(weights.to(values.dtype), values, output, input_precision=C.precision)
    return new_maximum, total, output


@triton.jit
def add_sink(log_sum, sink):
    """Let a score without value (natural) join; return (factor of the average, base-2 sum)."""
    sink = sink.to(tl.float32) * LOG2_E
    highest = tl.maximum(log_sum, sink)
    joined = highest + tl.log2(tl.exp2(log_sum - highest) + tl.exp2(sink - highest))
    return tl.exp2(log_sum - joined), joined
