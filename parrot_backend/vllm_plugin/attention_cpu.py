"""vLLM's CPU backend, which leaves steps to our kernel in which sharing reads of KV pays.

All else is vLLM's own code: prompts, requests outside of every group, models that ask for what the
kernel does not have, and everything where no compiler is. Imports vLLM.
"""

from __future__ import annotations

from typing import Any

import torch

from parrot_backend.kernels import cpu
from parrot_backend.vllm_compat import attention as compat
from parrot_backend.vllm_compat.attention import LayerTraits
from parrot_backend.vllm_compat.attention_cpu import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
    ExtendedMetadata,
    extended_metadata,
)
from parrot_backend.vllm_plugin.attention_step import SharedStep, StepSharing
from parrot_backend.vllm_plugin.attention_switch import AttentionSwitch


class SharedCpuBackend(CPUAttentionBackend):
    """Stands in for ``CPU_ATTN``, under its name."""

    @staticmethod
    def get_impl_cls() -> type[SharedCpuImpl]:
        """Return what computes a layer."""
        return SharedCpuImpl

    @staticmethod
    def get_builder_cls() -> type[SharedCpuBuilder]:
        """Return what prepares a step."""
        return SharedCpuBuilder


class SharedCpuBuilder(CPUAttentionMetadataBuilder):
    """Prepares each step for all layers of a KV cache group."""

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._switch = AttentionSwitch(
            vllm_config, kv_cache_spec, layer_names, self._why_plain, self._sharing
        )

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> CPUAttentionMetadata:
        """Return a step's metadata, with a plan if requests share reads in it."""
        shared = self._switch.step(common_attn_metadata)
        if shared is None:
            return super().build(common_prefix_len, common_attn_metadata, fast_build)
        rest = None
        if shared.rest is not None:
            batch = compat.batch_of(common_attn_metadata)
            assert batch is not None, "it was planned"
            rest = super().build(0, compat.subset_of(common_attn_metadata, batch, shared.rest))
        return extended_metadata(common_attn_metadata, shared, rest)

    def _sharing(self) -> StepSharing:
        return StepSharing(self.block_size, torch.get_num_threads(), cpu.plan_costs())

    def _why_plain(self, layer: LayerTraits) -> str | None:
        return cpu.why_plain(self, layer)


class SharedCpuImpl(CPUAttentionBackendImpl):
    """Computes a layer."""

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Write the attention of all query tokens into ``output``; see vLLM's own."""
        if not isinstance(attn_metadata, ExtendedMetadata):
            return super().forward(
                layer,
                query,
                key,
                value,
                kv_cache,
                attn_metadata,
                output,
                output_scale,
                output_block_scale,
            )
        shared: SharedStep = attn_metadata.shared
        num_tokens = attn_metadata.num_actual_tokens
        shape = (num_tokens, self.num_heads, self.head_size)
        rows, found = query[:num_tokens].view(shape), output[:num_tokens].view(shape)
        if shared.tokens is None:
            self._run(rows, kv_cache, shared, found)
            return output
        tokens = torch.from_numpy(shared.tokens)
        part = torch.empty((len(tokens), *shape[1:]), dtype=output.dtype)
        self._run(rows[tokens], kv_cache, shared, part)
        found[tokens] = part
        rest = torch.from_numpy(shared.rest_tokens)
        part = torch.empty((len(rest), *shape[1:]), dtype=output.dtype)
        super().forward(layer, rows[rest], key, value, kv_cache, attn_metadata.rest, part)
        found[rest] = part
        return output

    def _run(
        self, query: torch.Tensor, kv_cache: torch.Tensor, shared: SharedStep, output: torch.Tensor
    ) -> None:
        cpu.cpu_attention(query, kv_cache, shared.batch.block_table, shared.work, output, scale=self.scale)
