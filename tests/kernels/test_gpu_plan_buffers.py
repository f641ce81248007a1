"""Plans in device blocks, limits, and what follows from chips and models. Runs nothing on a GPU."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed on this platform")

from parrot_backend.kernels import (
    AttentionError,
    LayerAttention,
    PlainReason,
    PlanCosts,
    Planner,
    WorkPlan,
    why_plain,
)
from parrot_backend.kernels.gpu import (
    PlanBuffers,
    PlanLimits,
    PlanTooLarge,
    Variant,
    abilities_of,
    choose_variant,
    count_workers,
)
from parrot_backend.kernels.gpu.plan_buffers import pack_plan
from parrot_backend.kernels.gpu.variants import Constants

LIMITS = PlanLimits(num_workers=4, max_items=64, max_tokens=32, max_slots=256, max_rows=16)


def plan_of(num_requests: int = 6, shared_pages: int = 4) -> WorkPlan:
    table = np.zeros((num_requests, shared_pages + 2), np.int32)
    table[:, :shared_pages] = np.arange(shared_pages)
    table[:, shared_pages] = 100 + np.arange(num_requests)
    lens = np.full(num_requests, shared_pages * 16 + 5, np.int32)
    starts = np.arange(num_requests + 1, dtype=np.int32)
    costs = PlanCosts(item=0, partial=0, min_chunk_tokens=16, max_rows=16)
    return Planner(16, 4, costs).plan(table, starts, lens)


def test_a_block_gives_back_the_plan() -> None:
    plan = plan_of()
    words = np.full(LIMITS.num_words, -7, np.int32)
    size = pack_plan(plan, plan.num_tokens + 3, words)
    worker_ptr, items, tokens, positions, slot_ptr, slots, num_tokens, _ = words[:8].tolist()
    for start, array in (
        (worker_ptr, plan.worker_ptr),
        (items, plan.items.reshape(-1)),
        (tokens, plan.tokens),
        (positions, plan.positions),
        (slot_ptr, plan.slot_ptr),
        (slots, plan.slots),
    ):
        np.testing.assert_array_equal(words[start : start + len(array)], array)
    assert num_tokens == plan.num_tokens + 3
    # Padding: the same pointer again and again, so no partials.
    end = slot_ptr + len(plan.slot_ptr)
    assert words[end : end + 3].tolist() == [plan.num_slots] * 3
    assert slots == end + 3
    assert size == slots + plan.num_slots
    assert (words[size:] == -7).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_workers": 5}, AttentionError, "workers"),
        ({"max_rows": 2}, AttentionError, "max_rows"),
        ({"max_items": 1}, PlanTooLarge, "items"),
        ({"max_tokens": 5}, PlanTooLarge, "query tokens"),
        ({"max_slots": 5}, PlanTooLarge, "partials"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        replace(LIMITS, **change).check(plan_of(), 6)
    assert type(caught.value) is error


def test_fewer_tokens_than_the_plan_has_are_refused() -> None:
    with pytest.raises(AttentionError, match="query tokens"):
        LIMITS.check(plan_of(), 5)


def test_loading_again_and_again_leaves_the_newest_plan() -> None:
    buffers = PlanBuffers(LIMITS, num_query_heads=2, head_dim=8, device=torch.device("cpu"))
    for count in (6, 3, 9, 2, 7):
        plan = plan_of(count)
        buffers.load(plan, count + 1)
        words = np.zeros(LIMITS.num_words, np.int32)
        size = pack_plan(plan, count + 1, words)
        np.testing.assert_array_equal(buffers.plan[:size].numpy(), words[:size])
        assert buffers.num_tokens == count + 1


def test_a_host_copy_is_not_written_before_it_is_on_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps overlap: a copy to the device may still wait for the step before it."""
    log: list[tuple[str, int]] = []

    class Event:
        made = 0

        def __init__(self) -> None:
            self.number = Event.made
            Event.made += 1

        def record(self) -> None:
            log.append(("copy", self.number))

        def synchronize(self) -> None:
            log.append(("wait", self.number))

    buffers = PlanBuffers(LIMITS, num_query_heads=2, head_dim=8, device=torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(buffers, "_is_cuda", True)
    for count in (6, 3, 9, 2, 7):
        buffers.load(plan_of(count))
    assert log[:3] == [("copy", 0), ("copy", 1), ("copy", 2)]
    assert log[3:] == [("wait", 0), ("copy", 0), ("wait", 1), ("copy", 1)]


def test_buffers_beyond_32_bit_offsets_are_refused() -> None:
    limits = replace(LIMITS, max_slots=2**20)
    with pytest.raises(AttentionError, match="32-bit"):
        PlanBuffers(limits, num_query_heads=64, head_dim=256, device=torch.device("cpu"))


def test_limits_for_batches_hold_what_batches_plan() -> None:
    limits = PlanLimits.for_batches(12, 12, num_workers=4, max_rows=16)
    limits.check(plan_of(12), 12)


@pytest.mark.parametrize(
    ("capability", "page_size", "head_dim", "wide_rows", "expected"),
    [
        ((9, 0), 64, 128, 64, (True, 64, 4)),
        ((9, 0), 128, 128, 128, (True, 64, 8)),
        ((9, 0), 64, 256, 64, (True, 32, 8)),
        ((9, 0), 16, 128, 64, (False, 64, 4)),
        ((9, 0), 16, 256, 64, (False, 32, 8)),
        ((8, 0), 64, 128, 64, (False, 32, 4)),
        ((8, 9), 16, 256, 64, (False, 32, 8)),
    ],
)
def test_variants_follow_from_chip_and_model(
    capability: tuple[int, int],
    page_size: int,
    head_dim: int,
    wide_rows: int,
    expected: tuple[bool, int, int],
) -> None:
    variant = choose_variant(
        num_query_heads=32,
        num_kv_heads=8,
        head_dim=head_dim,
        page_size=page_size,
        capability=capability,
        wide_rows=wide_rows,
    )
    assert (variant.has_descriptors, variant.tile_tokens, variant.num_warps) == expected


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4, 5, 8, 10, 32, 40, 64])
def test_workers_fill_the_chip(num_kv_heads: int) -> None:
    variant = Variant(num_kv_heads=num_kv_heads, group_size=1, head_dim=128, page_size=64)
    programs = count_workers(variant, 132) * num_kv_heads
    rounds = -(-programs // 264)
    assert rounds <= 4
    assert programs / (rounds * 264) > 0.9


def test_constants_can_be_told_to_hooks_of_the_compiler() -> None:
    variant = Variant(num_kv_heads=2, group_size=7, head_dim=96, page_size=64)
    constants = Constants(variant)
    assert json.loads(json.dumps(constants)) == repr(variant)
    assert (constants.head_dim, constants.padded_dim) == (96, 128)
    assert Constants(replace(variant, has_lse=True)) != constants == Constants(variant)


def test_max_rows_leave_room_for_every_head() -> None:
    # 64 rows hold nine query tokens of seven heads.
    variant = Variant(num_kv_heads=2, group_size=7, head_dim=96, page_size=64)
    assert (variant.max_rows, variant.padded_dim, variant.num_query_heads) == (9, 128, 14)


@pytest.mark.parametrize(
    ("change", "capability", "reason"),
    [
        ({}, (9, 0), None),
        ({"softcap": 30.0, "has_sinks": True, "window": 64, "head_size": 96}, (9, 0), None),
        ({"kv_dtype": torch.float8_e4m3fn}, (8, 9), None),
        ({"kv_dtype": torch.float8_e4m3fn}, (8, 0), PlainReason.KV_DTYPE),
        ({"kv_dtype": torch.float8_e5m2}, (9, 0), PlainReason.KV_DTYPE),
        ({"dtype": torch.float32, "kv_dtype": torch.float32}, (9, 0), PlainReason.DTYPE),
        ({"has_alibi": True}, (9, 0), PlainReason.ALIBI),
        ({"is_latent": True}, (9, 0), PlainReason.LATENT),
        ({"is_causal": False}, (9, 0), PlainReason.NOT_CAUSAL),
        ({"head_size": 80}, (9, 0), PlainReason.HEAD_SIZE),
        ({"num_query_heads": 128}, (9, 0), PlainReason.HEAD_GROUP),
        ({"page_size": 48}, (9, 0), PlainReason.PAGE_SIZE),
        ({}, (7, 5), PlainReason.DTYPE),
    ],
)
def test_what_is_left_to_plain_attention(
    change: dict[str, object], capability: tuple[int, int], reason: PlainReason | None
) -> None:
    layer = LayerAttention(
        dtype=torch.bfloat16,
        kv_dtype=torch.bfloat16,
        head_size=128,
        num_query_heads=32,
        num_kv_heads=8,
        page_size=16,
    )
    changed = replace(layer, **change)  # type: ignore[arg-type]
    assert why_plain(changed, abilities_of(capability)) is reason
