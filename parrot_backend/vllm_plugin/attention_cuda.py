"""vLLM's Triton backend, which leaves steps to our kernel in which sharing reads of KV pays.

Chosen by ``--attention-backend CUSTOM``. In captured CUDA graphs of decode steps our kernel
computes all requests, by a plan that is loaded before the graph is replayed; in other steps it
computes those who share. Imports vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from parrot_backend.kernels import PlanCosts
from parrot_backend.kernels.gpu import (
    PlanBuffers,
    PlanLimits,
    ScoreOptions,
    Variant,
    abilities_of,
    choose_variant,
    count_workers,
    gpu_attention,
)
from parrot_backend.kernels.support import LayerAttention, why_plain
from parrot_backend.vllm_compat import attention as compat
from parrot_backend.vllm_compat.attention_cuda import (
    AttentionCGSupport,
    ExtendedMetadata,
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadata,
    TritonAttentionMetadataBuilder,
    captures_decodes,
    extended_metadata,
    is_decode_of_one,
)
from parrot_backend.vllm_compat.host_tables import watch
from parrot_backend.vllm_plugin.attention_graphs import BatchSize, CapturedBatches
from parrot_backend.vllm_plugin.attention_step import StepSharing
from parrot_backend.vllm_plugin.attention_switch import AttentionSwitch


class SharedCudaBackend(TritonAttentionBackend):
    """``CUSTOM``."""

    @staticmethod
    def get_name() -> str:
        """Return the name under which it is registered."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[SharedCudaImpl]:
        """Return what computes a layer."""
        return SharedCudaImpl

    @staticmethod
    def get_builder_cls() -> type[SharedCudaBuilder]:
        """Return what prepares a step."""
        return SharedCudaBuilder

    @classmethod
    def supports_device_cpu_query_lens_mismatch(cls) -> bool:
        """Return False: plans are made from what the host knows of query tokens."""
        return False


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """The part of a step that our kernel computes.

    Attributes:
        buffers: Its plan, on the device.
        variant: The compiled form that runs it.
        block_table: Of its requests, on the device.
        num_tokens: Query tokens of the whole batch, with the padding of a captured one.
        tokens: Its query tokens in the whole batch; None for all.
        rest_tokens: The other query tokens; None if there are none.
    """

    buffers: PlanBuffers
    variant: Variant
    block_table: torch.Tensor
    num_tokens: int
    tokens: torch.Tensor | None
    rest_tokens: torch.Tensor | None


class SharedCudaBuilder(TritonAttentionMetadataBuilder):
    """Prepares each step for all layers of a KV cache group."""

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._buffers: PlanBuffers | None = None
        self._captured = CapturedBatches()
        shares = compat.shares_attention(vllm_config)
        if shares:
            # A plan cannot be renewed by what a draft model's graph replays.
            self.supports_draft_decode_metadata_update = False
        self._switch = AttentionSwitch(
            vllm_config,
            kv_cache_spec,
            layer_names,
            self._why_plain,
            self._sharing,
            tables=watch() if shares else None,
        )

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        """Return which batches may be captured; vLLM's own if an engine begins without sharing."""
        if not compat.shares_attention(vllm_config):
            return super().get_cudagraph_support(vllm_config, kv_cache_spec)
        if compat.captures_attention(vllm_config):
            return AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
        return AttentionCGSupport.NEVER

    def build_for_cudagraph_capture(self, common_attn_metadata: Any) -> TritonAttentionMetadata:
        """Return metadata of a dummy batch that is captured, or replayed beside other engines."""
        table = common_attn_metadata.block_table_tensor
        is_ours = self._computes(common_attn_metadata)
        self._captured.note(_size(common_attn_metadata), table.data_ptr(), is_ours=is_ours)
        return super().build_for_cudagraph_capture(common_attn_metadata)

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> TritonAttentionMetadata:
        """Return a step's metadata, with a plan if requests share reads in it or it is captured."""
        stock = super().build(common_prefix_len, common_attn_metadata, fast_build)
        is_ours = self._captured.is_ours(_size(common_attn_metadata))
        if is_ours or (is_ours is None and self._warms_up(common_attn_metadata)):
            return self._build_whole(stock, common_attn_metadata)
        step = self._switch.step(common_attn_metadata, may_share=is_ours is None)
        if step is None:
            return stock
        assert self._buffers is not None, "made with what plans steps"
        self._buffers.load(step.work)
        table = common_attn_metadata.block_table_tensor
        num_requests = common_attn_metadata.num_reqs
        share = _Share(
            self._buffers,
            self._variant,
            table[:num_requests] if step.requests is None else table[self._index(step.requests)],
            int(common_attn_metadata.query_start_loc_cpu[num_requests]),
            None if step.tokens is None else self._index(step.tokens),
            None if step.rest_tokens is None else self._index(step.rest_tokens),
        )
        rest = None
        if step.rest is not None:
            rest = super().build(0, compat.subset_of(common_attn_metadata, step.rest))
        return extended_metadata(stock, share, rest)

    def _build_whole(self, stock: TritonAttentionMetadata, common: Any) -> TritonAttentionMetadata:
        """Return metadata of a batch of which our kernel computes all, with its plan loaded.

        What a graph reads has the addresses that it was captured with: the plan, the partials, and
        vLLM's block table. Queries and outputs are the graph's own.
        """
        assert self._buffers is not None, "made with what plans steps"
        table, num_tokens = common.block_table_tensor, common.num_actual_tokens
        self._captured.check_table(_size(common), table.data_ptr())
        self._buffers.load(self._switch.whole_step(common).work, num_tokens)
        rows = table[: common.num_reqs]
        share = _Share(self._buffers, self._variant, rows, num_tokens, None, None)
        return extended_metadata(stock, share, None)

    def _computes(self, common: Any) -> bool:
        return (
            self._switch.can_compute
            and captures_decodes(self.vllm_config)
            and compat.captures_attention(self.vllm_config)
            and is_decode_of_one(common)
            and compat.is_plain_batch(common)
        )

    def _warms_up(self, common: Any) -> bool:
        """Tell whether vLLM may be about to capture: our kernel must have been compiled by then."""
        return self._captured.is_empty and self._computes(common)

    def _index(self, numbers: Any) -> torch.Tensor:
        return compat.to_device(numbers, self.device)

    @property
    def _variant(self) -> Variant:
        return choose_variant(
            num_query_heads=self.num_heads_q,
            num_kv_heads=self.num_heads_kv,
            head_dim=self.headdim,
            page_size=self.block_size,
            capability=torch.cuda.get_device_capability(self.device),
        )

    def _sharing(self) -> StepSharing:
        """Make the planner, and room for its plans."""
        variant = self._variant
        chip = torch.cuda.get_device_properties(self.device)
        workers = count_workers(variant, chip.multi_processor_count)
        config = self.vllm_config
        requests = config.scheduler_config.max_num_seqs
        limits = PlanLimits.for_batches(
            requests,
            requests * (1 + config.num_speculative_tokens),
            num_workers=workers,
            max_rows=variant.max_rows,
        )
        self._buffers = PlanBuffers(
            limits,
            num_query_heads=variant.num_query_heads,
            head_dim=variant.head_dim,
            device=self.device,
        )
        return StepSharing(
            self.block_size,
            workers,
            PlanCosts(max_rows=variant.max_rows),
            why_too_large=limits.why_too_large,
        )

    def _why_plain(self, layer: LayerAttention) -> str | None:
        abilities = abilities_of(torch.cuda.get_device_capability(self.device))
        # Queries of quantised caches come quantised as well, which the kernel does not take.
        return why_plain(layer, replace(abilities, kv_dtypes=abilities.dtypes))


def _size(common: Any) -> BatchSize:
    return BatchSize(common.num_reqs, common.num_actual_tokens)


class SharedCudaImpl(TritonAttentionImpl):
    """Computes a layer."""

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: TritonAttentionMetadata,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Write the attention of all query tokens into ``output``; see vLLM's own."""
        stock = super().forward
        scales = (output_scale, output_block_scale)
        if not isinstance(attn_metadata, ExtendedMetadata) or scales != (None, None):
            return stock(layer, query, key, value, kv_cache, attn_metadata, output, *scales)
        share: _Share = attn_metadata.shared
        shape = (share.num_tokens, self.num_heads, self.head_size)
        rows, found = query[: shape[0]].view(shape), output[: shape[0]].view(shape)
        if share.tokens is None:
            self._attend(share, rows, kv_cache, found)
            return output
        part = torch.empty_like(found[: len(share.tokens)])
        self._attend(share, rows[share.tokens], kv_cache, part)
        found[share.tokens] = part
        if attn_metadata.rest is not None and share.rest_tokens is not None:
            other = rows[share.rest_tokens]
            part = torch.empty_like(found[: len(share.rest_tokens)])
            stock(layer, other, key, value, kv_cache, attn_metadata.rest, part)
            found[share.rest_tokens] = part
        return output

    def _attend(
        self, share: _Share, query: torch.Tensor, kv_cache: torch.Tensor, output: torch.Tensor
    ) -> None:
        back = self.sliding_window[0]
        keys, values = kv_cache.split(self.head_size, dim=-1)
        gpu_attention(
            query,
            keys,
            values,
            share.block_table,
            share.buffers,
            share.variant,
            scale=self.scale,
            options=ScoreOptions(
                softcap=self.logits_soft_cap,
                window=None if back < 0 else back + 1,
                sinks=self.sinks,
            ),
            output=output,
        )
