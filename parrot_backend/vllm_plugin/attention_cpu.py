"""vLLM's CPU backend, which leaves steps to our kernel in which sharing reads of KV pays.

All else is vLLM's own code: prompts, requests outside of every group, models that ask for what the
kernel does not have, and everything where no compiler is. Imports vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from parrot_backend.kernels import cpu
from parrot_backend.kernels.cpu import CpuStep
from parrot_backend.kernels.support import LayerAttention, why_plain
from parrot_backend.vllm_compat import attention as compat
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


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """The part of a step that our kernel computes.

    Attributes:
        step: What it is.
        kernel: Computes a layer of it.
        tokens: Its query tokens in the whole batch; None for all.
        rest_tokens: The other query tokens; None if there are none.
    """

    step: SharedStep
    kernel: CpuStep
    tokens: torch.Tensor | None
    rest_tokens: torch.Tensor | None


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
        step = self._switch.step(common_attn_metadata)
        if step is None:
            return super().build(common_prefix_len, common_attn_metadata, fast_build)
        share = _Share(
            step,
            CpuStep(step.work, step.batch.block_table, self.block_size),
            _index(step.tokens),
            _index(step.rest_tokens),
        )
        rest = None
        if step.rest is not None:
            rest = super().build(0, compat.subset_of(common_attn_metadata, step.rest))
        return extended_metadata(common_attn_metadata, share, rest)

    def _sharing(self) -> StepSharing:
        costs = cpu.plan_costs(self.num_heads // self.num_kv_heads)
        assert isinstance(self.dtype, torch.dtype), "vLLM has resolved its name"
        takes_all = cpu.beats_plain(self.dtype, cpu.LAYOUT_OF_VLLM_ISA[self.isa])
        threads = torch.get_num_threads()
        return StepSharing(self.block_size, threads, costs, takes_all=takes_all)

    def _why_plain(self, layer: LayerAttention) -> str | None:
        layout = cpu.LAYOUT_OF_VLLM_ISA.get(self.isa)
        if layout is None:
            return f"no kernel reads vLLM's cache for {self.isa}"
        return why_plain(layer, cpu.ABILITIES) or cpu.why_unreadable(layout)


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
        stock = super().forward
        if not isinstance(attn_metadata, ExtendedMetadata):
            scales = (output_scale, output_block_scale)
            return stock(layer, query, key, value, kv_cache, attn_metadata, output, *scales)
        share: _Share = attn_metadata.shared
        num_tokens = attn_metadata.num_actual_tokens
        shape = (num_tokens, self.num_heads, self.head_size)
        rows, found = query[:num_tokens].view(shape), output[:num_tokens].view(shape)
        if share.tokens is None:
            self._attend(share, layer, rows, kv_cache, found)
            return output
        part = torch.empty((len(share.tokens), *shape[1:]), dtype=output.dtype)
        self._attend(share, layer, rows[share.tokens], kv_cache, part)
        found[share.tokens] = part
        if attn_metadata.rest is not None and share.rest_tokens is not None:
            part = torch.empty((len(share.rest_tokens), *shape[1:]), dtype=output.dtype)
            other = rows[share.rest_tokens]
            stock(layer, other, key, value, kv_cache, attn_metadata.rest, part)
            found[share.rest_tokens] = part
        return output

    def _attend(
        self,
        share: _Share,
        layer: Any,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        output: torch.Tensor,
    ) -> None:
        share.kernel.attend(
            query,
            kv_cache,
            scale=self.scale,
            output=output,
            softcap=self.logits_soft_cap,
            window=self.sliding_window if self.sliding_window > 0 else None,
            sinks=self.sinks,
            layout=cpu.LAYOUT_OF_VLLM_ISA[layer.isa],
        )


def _index(tokens: npt.NDArray[np.int64] | None) -> torch.Tensor | None:
    return None if tokens is None else torch.from_numpy(tokens)
