"""Which batches count as captured, and that a graph never reads another block table."""

from __future__ import annotations

import pytest

from parrot_backend.kernels.errors import AttentionError
from parrot_backend.vllm_plugin.attention_graphs import BatchSize, CapturedBatches

EIGHT, FOUR = BatchSize(8, 8), BatchSize(4, 4)


def test_a_batch_counts_as_captured_by_its_size() -> None:
    assert CapturedBatches().is_empty
    captured = CapturedBatches()
    captured.note(EIGHT, 100, is_ours=True)
    captured.note(FOUR, 100, is_ours=False)
    assert not captured.is_empty
    assert captured.is_ours(EIGHT) is True
    assert captured.is_ours(FOUR) is False
    # As many query tokens of fewer requests are another batch.
    assert captured.is_ours(BatchSize(4, 8)) is None


def test_what_was_captured_first_stays() -> None:
    captured = CapturedBatches()
    captured.note(FOUR, 100, is_ours=False)
    # Replayed as a dummy after sharing was switched on: the graph has vLLM's kernel.
    captured.note(FOUR, 100, is_ours=True)
    assert captured.is_ours(FOUR) is False


def test_another_block_table_is_refused() -> None:
    captured = CapturedBatches()
    captured.note(EIGHT, 100, is_ours=True)
    captured.note(FOUR, 100, is_ours=False)
    captured.check_table(EIGHT, 100)
    captured.check_table(FOUR, 999)
    captured.check_table(BatchSize(3, 3), 999)
    with pytest.raises(AttentionError, match="another block table"):
        captured.check_table(EIGHT, 999)
