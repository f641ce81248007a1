"""Combines partial attention results of the same query token by their log-sum-exp."""

from __future__ import annotations

import math

import torch

from parrot_backend.kernels.errors import AttentionError


def merge_partials(
    outputs: torch.Tensor,
    lse: torch.Tensor,
    slot_ptr: torch.Tensor,
    slots: torch.Tensor,
    *,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the partials of each query token.

    Args:
        outputs: [S, Hq, D] Partial outputs, each normalised over its own range.
        lse: [S, Hq] Natural log-sum-exp of the scores of that range; -inf for an empty one, whose
            output may then be anything finite.
        slot_ptr: [T + 1] Query token t has the partials ``slots[slot_ptr[t] : slot_ptr[t + 1]]``.
        slots: [S'] Rows of ``outputs`` and ``lse``.
        sinks: [Hq] A score per head that takes part in the softmax and has no value.

    Returns:
        Output [T, Hq, D] and log-sum-exp [T, Hq], natural, in the types of the partials. A query
        token that has no partial, or none that saw anything, has 0 and -inf (with sinks: 0 and the
        sink).

    Raises:
        AttentionError: Shapes do not fit, or numbers of slots.
    """
    if outputs.ndim != 3 or lse.shape != outputs.shape[:2]:
        raise AttentionError(
            f"outputs must be [S, Hq, D] and lse [S, Hq], not {[*outputs.shape]}, {[*lse.shape]}"
        )
    if slot_ptr.ndim != 1 or len(slot_ptr) < 1 or int(slot_ptr[-1]) != len(slots):
        raise AttentionError("slot_ptr must be [T + 1] and end at the number of slots")
    num_tokens = len(slot_ptr) - 1
    counts = slot_ptr.diff().long()
    if int(slot_ptr[0]) != 0 or bool((counts < 0).any()):
        raise AttentionError("slot_ptr must begin at 0 and never fall")
    if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < len(lse):
        raise AttentionError(f"slots must be rows of {len(lse)} partials")
    token = torch.repeat_interleave(torch.arange(num_tokens, device=slots.device), counts)
    parts, part_lse = outputs[slots.long()], lse[slots.long()]
    highest = torch.full((num_tokens, lse.shape[1]), -math.inf, dtype=lse.dtype, device=lse.device)
    highest.scatter_reduce_(0, token[:, None].expand_as(part_lse), part_lse, "amax")
    highest = torch.where(highest == -math.inf, 0.0, highest)
    weight = torch.exp(part_lse - highest[token])
    total = torch.zeros_like(highest).index_add(0, token, weight)
    summed = torch.zeros(num_tokens, *outputs.shape[1:], dtype=outputs.dtype, device=outputs.device)
    summed = summed.index_add(0, token, parts * weight[..., None].to(outputs.dtype))
    merged = summed / torch.where(total == 0, 1.0, total)[..., None].to(outputs.dtype)
    merged_lse = highest + torch.log(total)
    if sinks is not None:
        add_sinks(merged, merged_lse, sinks)
    return merged, merged_lse


def add_sinks(output: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor) -> None:
    """Let a score without value take part in the softmax of each head, in place.

    Args:
        output: [T, Hq, D].
        lse: [T, Hq] Natural.
        sinks: [Hq].

    Raises:
        AttentionError: ``sinks`` has another shape.
    """
    if sinks.shape != lse.shape[1:]:
        raise AttentionError(f"sinks must be [{lse.shape[1]}], not {[*sinks.shape]}")
    total = torch.logaddexp(lse, sinks.to(lse.dtype))
    left = torch.exp(lse - torch.where(total == -math.inf, 0.0, total))
    output *= left[..., None].to(output.dtype)
    lse.copy_(total)
