"""The engines of the paper's evaluation, as their published times tell.

Parrot's engine and vLLM of late 2023 are fitted on points of the paper's artifact that are named
here; everything else that a figure shows is predicted.
"""

from __future__ import annotations

from dataclasses import replace

from parrot_backend.sim.latency import DecodeTime, PiecewiseLatency
from parrot_backend.sim.spec import EngineSpec

_BLOCK_TOKENS = 16

#: KV tokens of an A100 with 80 GB beside a 13B model (DistServe, max_num_tokens of OPT-13B).
_A100_13B_TOKENS = 66_144

# DistServe's fit of the vLLM of that time on OPT-13B (simdistserve, profiler-a100-80g, "vllm"):
# what a prompt token, its square, a context token and a decoding request add.
_PER_PROMPT_TOKEN_S = 0.1405e-3
_PER_SQUARED_TOKEN_S = 8.08e-9
_PER_CONTEXT_TOKEN_S = 0.593e-6
_PER_DECODE_S = 0.0607e-3
_LARGE = DecodeTime(17.4e-3, 0.491e-6, 0.120e-3)
_LARGE_BATCH = 95

# A step at batch 1 with 550 tokens of context takes 20.9 ms in Parrot's engine and 21.0 ms in vLLM:
# the slopes of figure 11a over the length of outputs. A prompt of 530 tokens takes 112 ms and
# 99 ms: its intercepts.
_PARROT_DECODE = DecodeTime(20.51e-3, _PER_CONTEXT_TOKEN_S, _PER_DECODE_S)
_VLLM_DECODE = DecodeTime(20.61e-3, _PER_CONTEXT_TOKEN_S, _PER_DECODE_S)

#: What LangChain, FastChat and the client add to a call: the intercept of figure 11 for vLLM.
FASTCHAT_OVERHEAD_S = 0.224

_PARROT_13B = PiecewiseLatency(
    0.035, _PER_PROMPT_TOKEN_S, _PER_SQUARED_TOKEN_S, _PARROT_DECODE, _LARGE, _LARGE_BATCH
)
_VLLM_13B = PiecewiseLatency(
    0.022,
    _PER_PROMPT_TOKEN_S,
    _PER_SQUARED_TOKEN_S,
    _VLLM_DECODE,
    _LARGE,
    _LARGE_BATCH,
    mixes=False,
)

#: Parrot's engine on one A100 with LLaMA 13B.
PARROT_A100_13B = EngineSpec(
    _PARROT_13B,
    num_blocks=_A100_13B_TOKENS // _BLOCK_TOKENS,
    max_step_tokens=2560,
    caches_prefixes=False,
)
#: vLLM on the same.
VLLM_A100_13B = EngineSpec(
    _VLLM_13B,
    num_blocks=_A100_13B_TOKENS // _BLOCK_TOKENS,
    max_step_tokens=8000,
    rules="vllm",
    caches_prefixes=False,
    latency_capacity_tokens=None,
)
#: Hugging Face's generate on the same: one request at a time (fit of figure 11, workload note).
HF_A100_13B = replace(
    VLLM_A100_13B,
    latency=PiecewiseLatency(
        0.0302, 1.0 / 3800, 0.0, DecodeTime(0.0302, 0.0, 0.0), DecodeTime(0.0302, 0.0, 0.0), 95
    ),
    max_requests=1,
)
HF_OVERHEAD_S = 0.258

# A100 with 7B: fitted on figure 16 (times per token at batches of 32 and 64, with Parrot's kernel
# and without), used for figure 15. What 31 and 63 further readers of 5,107 tokens add to a step is
# 0.12 and 0.16 us a token, where a first reader pays 0.35: caches of the GPU serve the rest.
_A100_7B_DECODE = DecodeTime(15.0e-3, 0.35e-6, 0.25e-3)
_A100_7B = PiecewiseLatency(0.020, 0.085e-3, 4.0e-9, _A100_7B_DECODE, _A100_7B_DECODE, 10_000)
PAGED_REPEATED_READ = 0.4

#: One A100 with LLaMA 7B and 6,800 blocks, as in figures 15 and 16, with Parrot's kernel.
PARROT_A100_7B = EngineSpec(
    _A100_7B, num_blocks=6800, max_step_tokens=8000, max_requests=64, repeated_read=0.0
)

# A6000 with 7B: a step at batch 1 and what each further request adds are fitted on two points of
# figure 17 (Parrot at 1 and 4 requests a second); a KV token of 0.524 MB at 768 GB/s, 13 % above
# that floor, and 6,400 prompt tokens a second are scaled from other engines on that GPU. How many
# requests run at once in the artifact is not known: 24 fits figure 17 from 1 to 8 a second.
_A6000_7B_DECODE = DecodeTime(29.0e-3, 0.77e-6, 0.26e-3)
_A6000_7B = PiecewiseLatency(0.029, 0.156e-3, 7.0e-9, _A6000_7B_DECODE, _A6000_7B_DECODE, 10_000)

#: One of four A6000 with LLaMA 7B and 3,000 blocks, as in figure 17, with Parrot's kernel.
PARROT_A6000_7B = EngineSpec(
    _A6000_7B,
    num_blocks=3000,
    max_step_tokens=8000,
    max_requests=24,
    repeated_read=0.0,
    latency_capacity_tokens=None,
)
