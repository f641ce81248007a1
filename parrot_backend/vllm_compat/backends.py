"""Tells vLLM of our attention backends. Imports neither them nor, before it is called, vLLM."""

from __future__ import annotations

_CPU_BACKEND = "parrot_backend.vllm_plugin.attention_cpu.SharedCpuBackend"
_CUDA_BACKEND = "parrot_backend.vllm_plugin.attention_cuda.SharedCudaBackend"


def register_backends() -> None:
    """Let vLLM find our attention backends. Idempotent.

    On CPUs vLLM knows one backend, and ours stands in for it; on GPUs it is ``CUSTOM``.
    """
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, _CPU_BACKEND)
    else:
        register_backend(AttentionBackendEnum.CUSTOM, _CUDA_BACKEND)
