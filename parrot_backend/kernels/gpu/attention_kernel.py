"""The persistent kernel: a program runs one worker's items for one KV head.

Wide items (many rows) and narrow ones (a request's own tail) take two paths of one launch. A query
token with a single partial is finished here; of others a partial is kept for ``merge_kernel``.
The plan is read from device memory, so a captured launch serves every plan that fits its grid.
``C`` is the ``Variant`` (``Constants``).
"""

from __future__ import annotations

import triton
import triton.language as tl

from parrot_backend.kernels import work
from parrot_backend.kernels.gpu.tiles import (
    LOG2_E,
    accumulate,
    add_sink,
    as_operand,
    load_pages,
    scores_of,
)

ROW_START = tl.constexpr(work.ROW_START)
NUM_ROWS = tl.constexpr(work.NUM_ROWS)
TABLE_ROW = tl.constexpr(work.TABLE_ROW)
KV_START = tl.constexpr(work.KV_START)
KV_END = tl.constexpr(work.KV_END)
SLOT_START = tl.constexpr(work.SLOT_START)
FLAGS = tl.constexpr(work.FLAGS)
CAUSAL = tl.constexpr(work.CAUSAL)
DIRECT = tl.constexpr(work.DIRECT)


@triton.jit
def add_tile(state, query, source, at, seen, numbers, WHOLE: tl.constexpr, C: tl.constexpr):
    """Add the tile of positions from ``at`` to ``state``: (maximum, total, output) of each row.

    Positions beyond the end have no weight, but a page may hold anything there, and if that is no
    number, neither is its product with 0. So a tile that is not ``WHOLE`` has its values zeroed
    there. Loads by pointer have done that; where values came by descriptor, it takes them through
    registers.
    """
    maximum, total, output = state
    key, value, key_strides, value_strides, block_row, kv_head, end = source
    keys = load_pages(key, key_strides, block_row, kv_head, at, end, C)
    values = load_pages(value, value_strides, block_row, kv_head, at, end, C)
    keys = as_operand(keys, query.dtype, C)
    values = as_operand(values, query.dtype, C)
    if C.has_descriptors and not WHOLE:
        position = at + tl.arange(0, C.tile_tokens)
        values = tl.where((position < end)[:, None], values, 0.0)
    scores = scores_of(query, keys, at, seen, numbers, WHOLE, C)
    return accumulate(scores, values, maximum, total, output, C)


@triton.jit
def scan(query, source, start, end, seen, numbers, ROWS: tl.constexpr, C: tl.constexpr):
    """Return (maximum, total, output) of a tile of rows over positions [start, end)."""
    COLUMNS: tl.constexpr = C.padded_dim
    # Tensor cores of the wide path read values where a descriptor put them. So it first takes the
    # tiles that all rows see whole, and then, without hurry, those that they do not.
    IN_PLACE: tl.constexpr = C.has_descriptors and C.narrow_rows < ROWS
    m = tl.full((ROWS,), float("-inf"), tl.float32)
    t = tl.zeros((ROWS,), tl.float32)
    o = tl.zeros((ROWS, COLUMNS), tl.float32)
    stop = end
    if IN_PLACE:
        stop = tl.maximum(tl.min(seen[1]) // C.tile_tokens * C.tile_tokens, start)
    for at in tl.range(start, stop, C.tile_tokens, num_stages=C.num_stages):
        m, t, o = add_tile((m, t, o), query, source, at, seen, numbers, IN_PLACE, C)
    if IN_PLACE:
        for at in tl.range(stop, end, C.tile_tokens, num_stages=1):
            m, t, o = add_tile((m, t, o), query, source, at, seen, numbers, False, C)
    return m, t, o


@triton.jit
def rows_of(item, kv_head, tokens, ROWS: tl.constexpr, C: tl.constexpr):
    """Return (is there a row, row of the item, query head, query token) of each row of a tile."""
    row_start = tl.load(item + ROW_START)
    num_rows = tl.load(item + NUM_ROWS)
    packed = tl.arange(0, ROWS)
    is_row = packed < num_rows * C.group_size
    row = packed // C.group_size
    head = kv_head * C.group_size + packed % C.group_size
    token = tl.load(tokens + row_start + row, mask=is_row, other=0)
    return is_row, row, head, token


@triton.jit
def places(offset, is_row, C: tl.constexpr):
    """Return the offsets and the mask ``[rows, padded_dim]`` of the heads that start at ``offset``.

    Offsets are 32 bits: the caller has checked that queries, outputs and partials are that small.
    """
    column = tl.arange(0, C.padded_dim)
    mask = is_row[:, None]
    if C.padded_dim != C.head_dim:
        mask = mask & (column < C.head_dim)[None, :]
    return offset[:, None] + column[None, :], mask


@triton.jit
def store_partials(average, log_sum, place, is_row, partials, C: tl.constexpr):
    """Store rows that the merge finishes: the average over their range, and the base-2 sum."""
    partial_output, partial_lse = partials
    offset, mask = places(place * C.head_dim, is_row, C)
    tl.store(partial_output + offset, average, mask=mask)
    tl.store(partial_lse + place, log_sum, mask=is_row)


@triton.jit
def store_finished(average, log_sum, token, head, is_row, results, sinks, C: tl.constexpr):
    """Store rows that have no other partial, with their natural log-sum-exp."""
    output, lse, stride_token, stride_head = results
    if C.has_sinks:
        share, log_sum = add_sink(log_sum, tl.load(sinks + head, mask=is_row, other=0.0))
        average = average * share[:, None]
    offset, mask = places(token * stride_token + head * stride_head, is_row, C)
    tl.store(output + offset, average.to(output.dtype.element_ty), mask=mask)
    if C.has_lse:
        tl.store(lse + token * C.num_query_heads + head, log_sum / LOG2_E, mask=is_row)


@triton.jit
def attend(item, kv_head, inputs, plan, results, numbers, ROWS: tl.constexpr, C: tl.constexpr):
    """Run an item for one KV head."""
    queries, pages = inputs
    query, query_token, query_head = queries
    key, value, key_strides, value_strides, table, row_size = pages
    tokens, positions = plan
    finished, partials, sinks = results
    scale, softcap, window, value_scale = numbers
    is_row, row, head, token = rows_of(item, kv_head, tokens, ROWS, C)
    start = tl.load(item + KV_START)
    end = tl.load(item + KV_END)
    position = tl.load(positions + token, mask=is_row, other=0)
    is_causal = (tl.load(item + FLAGS) & CAUSAL) != 0
    seen_to = tl.where(is_row & is_causal, tl.minimum(position + 1, end), end)
    seen_from = tl.where(is_row, position - window + 1, end)
    if C.has_window:
        # Leave out tiles that no row sees.
        oldest = tl.maximum(tl.min(seen_from), 0)
        start = tl.maximum(start, oldest // C.tile_tokens * C.tile_tokens)
    offset, mask = places(token * query_token + head * query_head, is_row, C)
    rows = tl.load(query + offset, mask=mask, other=0.0)
    if C.upcasts:
        rows = rows.to(tl.float32)
    block_row = table + tl.load(item + TABLE_ROW).to(tl.int64) * row_size
    source = (key, value, key_strides, value_strides, block_row, kv_head, end)
    maximum, total, output = scan(
        rows, source, start, end, (seen_from, seen_to), (scale, softcap), ROWS, C
    )
    divisor = tl.where(total == 0.0, 1.0, total)
    average = output * (value_scale / divisor)[:, None]
    log_sum = maximum + tl.log2(divisor)
    # Once more, so that they take no registers while the tiles are multiplied.
    is_row, row, head, token = rows_of(item, kv_head, tokens, ROWS, C)
    if (tl.load(item + FLAGS) & DIRECT) != 0:
        store_finished(average, log_sum, token, head, is_row, finished, sinks, C)
    else:
        place = (tl.load(item + SLOT_START) + row) * C.num_query_heads + head
        store_partials(average, log_sum, place, is_row, partials, C)


@triton.jit
def run_items(plan, worker, kv_head, inputs, results, numbers, C: tl.constexpr):
    """Run all items of a worker for one KV head."""
    worker_ptr = plan + tl.load(plan)
    items = plan + tl.load(plan + 1)
    rows = (plan + tl.load(plan + 2), plan + tl.load(plan + 3))
    first = tl.load(worker_ptr + worker)
    last = tl.load(worker_ptr + worker + 1)
    # Without `disable_licm` what does not change from item to item is kept in registers over the
    # loop, more than there are: the compiler spills.
    for index in tl.range(first, last, num_stages=1, disable_licm=True):
        item = items + index * 8
        if C.wide_rows > C.narrow_rows and tl.load(item + NUM_ROWS) * C.group_size > C.narrow_rows:
            attend(item, kv_head, inputs, rows, results, numbers, C.wide_rows, C)
        else:
            attend(item, kv_head, inputs, rows, results, numbers, C.narrow_rows, C)


@triton.jit
def attention_kernel(
    query,
    key,
    value,
    block_table,
    plan,
    output,
    lse,
    partial_output,
    partial_lse,
    sinks,
    key_scale,
    value_scale,
    scale,
    softcap,
    window,
    query_token,
    query_head,
    key_page,
    key_head,
    key_token,
    value_page,
    value_head,
    value_token,
    stride_table,
    output_token,
    output_head,
    C: tl.constexpr,
):
    """Run the items of worker ``program // num_kv_heads`` for KV head ``program % num_kv_heads``.

    The grid is ``num_workers * num_kv_heads``. ``plan`` is what ``plan_buffers`` packs.
    """
    worker = tl.program_id(0) // C.num_kv_heads
    kv_head = tl.program_id(0) % C.num_kv_heads
    output_scale = 1.0
    if C.has_scales:
        scale = scale * tl.load(key_scale)
        output_scale = tl.load(value_scale)
    key_strides = (key_page, key_head, key_token)
    value_strides = (value_page, value_head, value_token)
    queries = (query, query_token, query_head)
    pages = (key, value, key_strides, value_strides, block_table, stride_table)
    results = ((output, lse, output_token, output_head), (partial_output, partial_lse), sinks)
    numbers = (scale, softcap, window, output_scale)
    run_items(plan, worker, kv_head, (queries, pages), results, numbers, C)
