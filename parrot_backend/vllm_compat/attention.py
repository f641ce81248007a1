"""What attention backends need of vLLM, whatever the device: batches, layers and registration.

Imports vLLM inside functions only: the plug-in's entry point uses it in each of vLLM's processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]

_CPU_BACKEND = "parrot_backend.vllm_plugin.attention_cpu.SharedCpuBackend"
_CUDA_BACKEND = "parrot_backend.vllm_plugin.attention_cuda.SharedCudaBackend"


@dataclass(frozen=True, slots=True, eq=False)
class StepBatch:
    """The batch of one step, as a backend sees it.

    Attributes:
        block_table: [B, P] physical ids of pages; beyond a request's length they mean nothing.
        query_start: [B + 1] where each request's query tokens begin; they are the last of it.
        seq_lens: [B] tokens with KV, those of this step included.
    """

    block_table: Ints
    query_start: Ints
    seq_lens: Ints


@dataclass(frozen=True, slots=True)
class LayerTraits:
    """What a layer asks of attention.

    Attributes:
        kind: vLLM's kind of attention; ``decoder`` is the causal one over a KV cache.
        kv_dtype: vLLM's name of the number format of its KV; ``auto`` is that of the activations.
        window: Tokens that a query sees back; None for all.
        softcap: Bound of scores; 0 for none.
    """

    num_heads: int
    num_kv_heads: int
    head_size: int
    kind: str
    kv_dtype: str
    window: int | None
    softcap: float
    has_alibi: bool
    has_sinks: bool


def traits_of(impl: Any) -> LayerTraits:
    """Return what an implementation of vLLM's CPU or Triton backend was made for."""
    window = impl.sliding_window
    # The Triton backend keeps a pair (back, ahead), counted without the query itself.
    tokens = window[0] + 1 if isinstance(window, tuple) else window
    return LayerTraits(
        num_heads=impl.num_heads,
        num_kv_heads=impl.num_kv_heads,
        head_size=impl.head_size,
        kind=str(getattr(impl.attn_type, "value", impl.attn_type)),
        kv_dtype=impl.kv_cache_dtype,
        window=tokens if tokens > 0 else None,
        softcap=float(impl.logits_soft_cap or 0),
        has_alibi=impl.alibi_slopes is not None,
        has_sinks=impl.sinks is not None,
    )


def layers_of(vllm_config: Any, names: Iterable[str]) -> tuple[LayerTraits, ...]:
    """Return what the layers of a KV cache group ask for, each kind once."""
    from vllm.config import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention import Attention

    layers = get_layers_from_vllm_config(vllm_config, Attention, list(names))
    return tuple(dict.fromkeys(traits_of(layer.impl) for layer in layers.values()))


def is_plain_cache(spec: Any) -> bool:
    """Tell whether a KV cache group keeps all tokens of all its layers, in pages."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return (
        type(spec) is FullAttentionSpec
        and spec.attention_chunk_size is None
        and not spec.non_causal
    )


def batch_of(common: Any) -> StepBatch | None:
    """Return vLLM's ``CommonAttentionMetadata`` as a batch; None if it is not simply causal.

    On CPUs these are views, otherwise copies, for which the device is waited for.
    """
    if common.causal is not True or common.mm_req_doc_ranges is not None:
        return None
    num = common.num_reqs
    return StepBatch(
        block_table=_numpy(common.block_table_tensor[:num]),
        query_start=_numpy(common.query_start_loc_cpu[: num + 1]),
        seq_lens=_numpy(common.seq_lens[:num]),
    )


def kv_tokens_of(common: Any) -> int:
    """Return how many tokens of KV a step's requests have, without waiting for a device."""
    known = common.seq_lens_cpu_upper_bound
    lengths = common.seq_lens if known is None else known
    return int(lengths[: common.num_reqs].sum())


def subset_of(common: Any, batch: StepBatch, requests: Ints) -> Any:
    """Return ``CommonAttentionMetadata`` of some requests alone, for a query of their tokens only.

    Only what vLLM's CPU backend reads of it is right.
    """
    from dataclasses import replace

    import torch

    lengths = np.diff(batch.query_start)[requests]
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    seq_lens = torch.from_numpy(batch.seq_lens[requests])
    return replace(
        common,
        num_reqs=len(requests),
        num_actual_tokens=int(lengths.sum()),
        max_query_len=int(lengths.max()),
        max_seq_len=int(batch.seq_lens[requests].max()),
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=seq_lens,
        block_table_tensor=torch.from_numpy(batch.block_table[requests]),
    )


def plugin_options(vllm_config: Any) -> Mapping[str, Any] | None:
    """Return entry ``parrot`` of vLLM's ``additional_config``; None if there is none."""
    config = vllm_config.additional_config
    found = config.get("parrot") if isinstance(config, Mapping) else None
    return found if isinstance(found, Mapping) else None


def engine_key(vllm_config: Any) -> str:
    """Return what this engine is called in all of its processes, and no other engine is."""
    parallel = vllm_config.parallel_config
    return f"{vllm_config.instance_id}-{parallel.data_parallel_index}"


def counts_steps(vllm_config: Any) -> bool:
    """Tell whether this process counts for the engine: all of its workers do the same work."""
    return bool(vllm_config.parallel_config.rank == 0)


def register_backends() -> None:
    """Let vLLM find our attention backends. Idempotent; imports neither of them.

    On CPUs vLLM knows one backend, and ours stands in for it; on GPUs it is ``CUSTOM``.
    """
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, _CPU_BACKEND)
    else:
        register_backend(AttentionBackendEnum.CUSTOM, _CUDA_BACKEND)


def _numpy(tensor: Any) -> Ints:
    found: Ints = tensor.cpu().numpy()
    return found
