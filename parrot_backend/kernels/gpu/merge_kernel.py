"""The second kernel: merges the partials of query tokens that have several.

It runs after ``attention_kernel`` on the same stream. Query tokens with one partial are finished
there; those with none, which are padding, get zeros. ``C`` is the ``Variant`` (``Constants``).
"""

from __future__ import annotations

import triton
import triton.language as tl

from parrot_backend.kernels.gpu.tiles import LOG2_E, add_sink

#: Partials that are loaded at once; more of them take as many turns.
SLOTS_AT_ONCE = tl.constexpr(8)


@triton.jit
def gather(slots, first, last, head, partials, C: tl.constexpr):
    """Return (maximum, total, weighted output) over the partials ``slots[first:last]``."""
    partial_output, partial_lse = partials
    column = tl.arange(0, C.padded_dim)
    maximum = -float("inf")
    total = 0.0
    weighted = tl.zeros_like(column.to(tl.float32))
    for start in range(first, last, SLOTS_AT_ONCE):
        index = start + tl.arange(0, SLOTS_AT_ONCE)
        is_slot = index < last
        slot = tl.load(slots + index, mask=is_slot, other=0)
        place = slot * C.num_query_heads + head
        log_sum = tl.load(partial_lse + place, mask=is_slot, other=float("-inf"))
        mask = is_slot[:, None] & (column < C.head_dim)[None, :]
        rows = partial_output + (place * C.head_dim)[:, None] + column[None, :]
        average = tl.load(rows, mask=mask, other=0.0)
        new_maximum = tl.maximum(maximum, tl.max(log_sum, 0))
        base = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        shrink = tl.exp2(maximum - base)
        weight = tl.exp2(log_sum - base)
        total = total * shrink + tl.sum(weight, 0)
        weighted = weighted * shrink + tl.sum(average * weight[:, None], 0)
        maximum = new_maximum
    return maximum, total, weighted


@triton.jit
def merge_kernel(
    plan,
    output,
    lse,
    partial_output,
    partial_lse,
    sinks,
    output_token,
    output_head,
    C: tl.constexpr,
):
    """Finish query head ``program 1`` of query token ``program 0``."""
    token = tl.program_id(0)
    head = tl.program_id(1)
    slot_ptr = plan + tl.load(plan + 4)
    slots = plan + tl.load(plan + 5)
    first = tl.load(slot_ptr + token)
    last = tl.load(slot_ptr + token + 1)
    if last - first != 1:
        column = tl.arange(0, C.padded_dim)
        partials = (partial_output, partial_lse)
        maximum, total, weighted = gather(slots, first, last, head, partials, C)
        log_sum = maximum + tl.log2(tl.where(total == 0.0, 1.0, total))
        average = weighted / tl.where(total == 0.0, 1.0, total)
        if C.has_sinks:
            share, log_sum = add_sink(log_sum, tl.load(sinks + head))
            average = average * share
        row = output + token * output_token + head * output_head
        mask = column < C.head_dim
        tl.store(row + column, average.to(output.dtype.element_ty), mask=mask)
        if C.has_lse:
            tl.store(lse + token * C.num_query_heads + head, log_sum / LOG2_E)
