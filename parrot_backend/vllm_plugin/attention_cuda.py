"""vLLM's Triton backend, which leaves steps to our kernel in which sharing reads of KV pays.

Chosen by ``--attention-backend CUSTOM``. Attention is not captured in CUDA graphs: whether a step
shares is decided from its block table, which is read back from the device. Imports vLLM.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from parrot_backend.kernels import PlanCosts
from parrot_backend.kernels.gpu import (
    PlanBuffers,
    PlanLimits,
    PlanTooLarge,
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
    extended_metadata,
)
from parrot_backend.vllm_plugin.attention_step import StepSharing
from parrot_backend.vllm_plugin.attention_switch import AttentionSwitch

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """The part of a step that our kernel computes.

    Attributes:
        buffers: Its plan, on the device.
        variant: The compiled form that runs it.
        block_table: Of its requests, on the device.
        num_tokens: Query tokens of the whole batch.
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

    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.NEVER

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._buffers: PlanBuffers | None = None
        self._switch = AttentionSwitch(
            vllm_config, kv_cache_spec, layer_names, self._why_plain, self._sharing
        )

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> TritonAttentionMetadata:
        """Return a step's metadata, with a plan if requests share reads in it."""
        stock = super().build(common_prefix_len, common_attn_metadata, fast_build)
        step = self._switch.step(common_attn_metadata)
        if step is None:
            return stock
        assert self._buffers is not None, "made with what plans steps"
        try:
            self._buffers.load(step.work)
        except PlanTooLarge as exc:
            logger.warning("a step does not share reads: %s", exc)
            return stock
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

    def _index(self, numbers: Any) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self.device, non_blocking=True)

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
        return StepSharing(self.block_size, workers, PlanCosts(max_rows=variant.max_rows))

    def _why_plain(self, layer: LayerAttention) -> str | None:
        abilities = abilities_of(torch.cuda.get_device_capability(self.device))
        # Queries of quantised caches come quantised as well, which the kernel does not take.
        return why_plain(layer, replace(abilities, kv_dtypes=abilities.dtypes))


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
