"""vLLM as an engine. Importing this package is cheap: vLLM is imported when an engine opens."""

from parrot_backend.engines.vllm.config import VllmConfig
from parrot_backend.engines.vllm.engine import VllmEngine
from parrot_backend.engines.vllm.processes import prewarm

__all__ = ["VllmConfig", "VllmEngine", "prewarm"]
