"""What can be set of a vLLM engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from parrot_backend.vllm_plugin.options import PluginOptions

SchedulerName = Literal["parrot", "vllm"]

#: The least block that vLLM's kernels for CPUs take.
_CPU_BLOCK_TOKENS = 32
_CPU_KV_CACHE_BYTES = 2**30


_COMPACT_JSON = {"backend": "xgrammar", "disable_any_whitespace": True}


def _own_options() -> PluginOptions:
    # All requests come from Parrot, which decides by itself what is spliced.
    return PluginOptions(splice=True)


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """A vLLM engine; None leaves a value to vLLM unless something else is said.

    Attributes:
        model: Folder of a model, or its name on the Hugging Face hub.
        served_model_name: Name that requests use; None takes ``model``.
        dtype: Number format of weights and activations.
        max_model_len: Longest prompt plus output, in tokens.
        block_size: Tokens per KV block, the grain of prefix sharing. None: 32 on CPUs; 64 and 128
            measured no faster there (a step of 8 requests with 2,000 tokens each: 25 to 28 ms).
        max_num_seqs: Requests in one batch.
        max_num_batched_tokens: Tokens in one step.
        kv_cache_bytes: Size of the KV cache. None: 1 GiB on CPUs, where vLLM would take nearly all
            memory; elsewhere what ``gpu_memory_utilization`` leaves.
        gpu_memory_utilization: Share of the GPU's memory that vLLM may use.
        latency_capacity_tokens: See ``EngineInfo``. Beyond this the time per token of the paper's
            13B model on an A100 rises steeply (Source: paper, figure 10).
        enforce_eager: Run without compiled graphs. None: on CPUs, where compiling takes longer
            than it saves. The first engine of a process decides for all, on CPUs.
        seed: Seed of sampling without a seed of its own.
        cpu_threads: Threads that compute, on CPUs. None: one core is left for everything else,
            because threads that wait for a busy core cost more than they bring. The first engine
            of a process decides for all.
        log_level: vLLM's own, unless its environment variable sets one.
        scheduler: ``parrot`` runs vLLM's scheduler with Parrot's policy, ``vllm`` its own alone.
        plugin: Options of Parrot's policy.
        shared_attention: Attention reads the KV that requests share once per step. None: on CPUs
            where it was measured to win (docs/kernels.md). Only with Parrot's policy.
        tool_call_parser: Name of vLLM's parser that finds calls of tools in free text; without one,
            only forced calls are possible. It belongs to the model.
        reasoning_parser: Name of vLLM's parser that tells reasoning from what follows. It belongs
            to the model.
        compact_json: JSON that is asked for has no white space between its tokens. Without this,
            weak models may write white space without end; with it, schemas that vLLM's backend
            xgrammar does not know are refused. Calls of tools keep their white space: vLLM has no
            such setting for them.
        close_timeout_s: Processes that have not ended after this are killed.
    """

    model: str
    served_model_name: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    block_size: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int | None = None
    kv_cache_bytes: int | None = None
    gpu_memory_utilization: float | None = None
    latency_capacity_tokens: int = 6_144
    enforce_eager: bool | None = None
    seed: int = 0
    cpu_threads: int | None = None
    log_level: str = "ERROR"
    scheduler: SchedulerName = "parrot"
    plugin: PluginOptions = field(default_factory=_own_options)
    shared_attention: bool | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    compact_json: bool = False
    close_timeout_s: float = 3.0

    @property
    def model_name(self) -> str:
        """The name that requests use."""
        return self.served_model_name or self.model

    @property
    def is_extended(self) -> bool:
        """Whether Parrot's policy runs inside the engine."""
        return self.scheduler == "parrot"

    def engine_arguments(self, is_cpu: bool) -> dict[str, Any]:
        """Return the arguments of ``AsyncEngineArgs``.

        Args:
            is_cpu: Whether the engine will run on CPUs.
        """
        shares = self._shares_attention(is_cpu)
        given = {
            "max_model_len": self.max_model_len,
            "block_size": self.block_size or (_CPU_BLOCK_TOKENS if is_cpu else None),
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "kv_cache_memory_bytes": self.kv_cache_bytes
            or (_CPU_KV_CACHE_BYTES if is_cpu else None),
            "gpu_memory_utilization": self.gpu_memory_utilization,
            # vLLM's core, too, must know where reasoning ends: constraints begin there.
            "reasoning_parser": self.reasoning_parser,
            "structured_outputs_config": _COMPACT_JSON if self.compact_json else None,
            # On CPUs there is one backend, and the plug-in stands in for it.
            "attention_backend": "CUSTOM" if shares and not is_cpu else None,
        }
        return {
            "model": self.model,
            "served_model_name": self.model_name,
            "dtype": self.dtype,
            "seed": self.seed,
            "max_num_seqs": self.max_num_seqs,
            "enforce_eager": is_cpu if self.enforce_eager is None else self.enforce_eager,
            "scheduling_policy": "priority",
            "enable_prefix_caching": True,
            # A progress bar has no place in a server's log.
            "use_tqdm_on_load": False,
            "additional_config": {"parrot": self._plugin(is_cpu)} if self.is_extended else {},
            **{name: value for name, value in given.items() if value is not None},
        }

    def _shares_attention(self, is_cpu: bool) -> bool:
        wanted = self.shared_attention
        if wanted is None:
            from parrot_backend.kernels.cpu import wins_inside_vllm  # which imports torch

            wanted = is_cpu and wins_inside_vllm()
        return wanted and self.is_extended and self.plugin.share_attention

    def _plugin(self, is_cpu: bool) -> dict[str, Any]:
        plugin = asdict(self.plugin)
        plugin["share_attention"] = self._shares_attention(is_cpu)
        if is_cpu:
            # A CPU has nothing to spare: a step that computes prompts beside decodes took 2 to 3 ms
            # longer than its tokens tell, as long as a whole step of decodes.
            plugin["spare_share"] = 0.0
        return plugin
