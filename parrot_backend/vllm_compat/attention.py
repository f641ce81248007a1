"""What attention backends need of vLLM, whatever the device: batches and layers. Imports vLLM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.config import get_layers_from_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE
from vllm.v1.attention.backend import AttentionType
from vllm.v1.kv_cache_interface import FullAttentionSpec

from parrot_backend.kernels.support import LayerAttention
from parrot_backend.vllm_compat.host_tables import HostTables
from parrot_backend.vllm_compat.step_batch import Ints, StepBatch


def layers_of(
    vllm_config: Any, names: Iterable[str], page_tokens: int
) -> tuple[LayerAttention, ...]:
    """Return what the layers of a KV cache group ask for, each kind once."""
    layers = get_layers_from_vllm_config(vllm_config, Attention, list(names))
    dtype = vllm_config.model_config.dtype
    found = (layer_of(layer.impl, dtype, page_tokens) for layer in layers.values())
    return tuple(dict.fromkeys(found))


def layer_of(impl: Any, dtype: torch.dtype, page_tokens: int) -> LayerAttention:
    """Return what an implementation of vLLM's CPU or Triton backend was made for."""
    window = impl.sliding_window
    # The Triton backend keeps a pair (back, ahead), counted without the query itself.
    tokens = window[0] + 1 if isinstance(window, tuple) else window
    is_auto = impl.kv_cache_dtype == "auto"
    return LayerAttention(
        dtype=dtype,
        kv_dtype=dtype if is_auto else STR_DTYPE_TO_TORCH_DTYPE[impl.kv_cache_dtype],
        head_size=impl.head_size,
        num_query_heads=impl.num_heads,
        num_kv_heads=impl.num_kv_heads,
        page_size=page_tokens,
        softcap=float(impl.logits_soft_cap or 0),
        window=tokens if tokens > 0 else None,
        has_sinks=impl.sinks is not None,
        has_alibi=impl.alibi_slopes is not None,
        is_causal=impl.attn_type == AttentionType.DECODER,
    )


def is_plain_cache(spec: Any) -> bool:
    """Tell whether a KV cache group keeps all tokens of all its layers, in pages."""
    return (
        type(spec) is FullAttentionSpec
        and spec.attention_chunk_size is None
        and not spec.non_causal
    )


def is_plain_batch(common: Any) -> bool:
    """Tell whether all requests of a batch are simply causal."""
    return common.causal is True and common.mm_req_doc_ranges is None


def batch_of(
    common: Any, *, knows_lengths: bool = False, tables: HostTables | None = None
) -> StepBatch | None:
    """Return vLLM's ``CommonAttentionMetadata`` as a batch; None if it is not simply causal.

    On CPUs these are views, otherwise copies. The device is waited for unless all is known here.

    Args:
        common: The metadata.
        knows_lengths: vLLM's bound of the lengths is no guess: see ``knows_lengths``.
        tables: Where block tables of devices may be found on the host.
    """
    if not is_plain_batch(common):
        return None
    num = common.num_reqs
    lengths = common.seq_lens
    if knows_lengths and common.seq_lens_cpu_upper_bound is not None:
        lengths = common.seq_lens_cpu_upper_bound
    table = None if tables is None else tables.rows_of(common)
    return StepBatch(
        block_table=_numpy(common.block_table_tensor[:num]) if table is None else table,
        query_start=_numpy(common.query_start_loc_cpu[: num + 1]),
        seq_lens=_numpy(lengths[:num]),
    )


def knows_lengths(vllm_config: Any) -> bool:
    """Tell whether vLLM knows lengths when it prepares a step.

    Without drafts it does. With them, its bound takes all of them to be accepted.
    """
    return bool(vllm_config.num_speculative_tokens == 0)


def kv_tokens_of(common: Any) -> int:
    """Return how many tokens of KV a step's requests have, without waiting for a device."""
    known = common.seq_lens_cpu_upper_bound
    lengths = common.seq_lens if known is None else known
    return int(lengths[: common.num_reqs].sum())


def subset_of(common: Any, requests: npt.NDArray[np.int64]) -> Any:
    """Return ``CommonAttentionMetadata`` of some requests alone, for a query of their tokens only.

    Only what vLLM's CPU and Triton backends read of it is right; ``max_seq_len`` stays an upper
    bound. No device is waited for.
    """
    lengths = np.diff(_numpy(common.query_start_loc_cpu[: common.num_reqs + 1]))[requests]
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    chosen = to_device(requests, common.seq_lens.device)
    return replace(
        common,
        num_reqs=len(requests),
        num_actual_tokens=int(starts[-1]),
        max_query_len=int(lengths.max()),
        query_start_loc=to_device(starts, common.seq_lens.device),
        query_start_loc_cpu=torch.from_numpy(starts),
        seq_lens=common.seq_lens[chosen],
        block_table_tensor=common.block_table_tensor[chosen],
    )


def to_device(array: npt.NDArray[np.integer[Any]], device: torch.device) -> torch.Tensor:
    """Return an array on a device, without waiting for it: only pinned memory is copied so."""
    tensor = torch.from_numpy(array)
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def plugin_options(vllm_config: Any) -> Mapping[str, Any] | None:
    """Return entry ``parrot`` of vLLM's ``additional_config``; None if there is none."""
    config = vllm_config.additional_config
    found = config.get("parrot") if isinstance(config, Mapping) else None
    return found if isinstance(found, Mapping) else None


def shares_attention(vllm_config: Any) -> bool:
    """Tell whether the plug-in's options let an engine share reads when it begins."""
    options = plugin_options(vllm_config)
    return options is not None and bool(options.get("share_attention", True))


def captures_attention(vllm_config: Any) -> bool:
    """Tell whether an engine that shares reads may have our attention in its CUDA graphs.

    Not with drafts: which of them count is known on the device only, and draft models renew their
    metadata inside of graphs.
    """
    options = plugin_options(vllm_config) or {}
    return bool(options.get("attention_graphs", True)) and knows_lengths(vllm_config)


def engine_key(vllm_config: Any) -> str:
    """Return what this engine is called in all of its processes, and no other engine is."""
    parallel = vllm_config.parallel_config
    return f"{vllm_config.instance_id}-{parallel.data_parallel_index}"


def counts_steps(vllm_config: Any) -> bool:
    """Tell whether this process counts for the engine: all of its workers do the same work."""
    return bool(vllm_config.parallel_config.rank == 0)


def _numpy(tensor: Any) -> Ints:
    found: Ints = tensor.cpu().numpy()
    return found
