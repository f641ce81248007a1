"""How long published engines take: constants, each with its source.

"Measured" are fits that the source gives, or fits of ours to times that it gives; the rest is put
together from the parts that are named. Times are seconds, lengths tokens. Nobody measured here.

Where a source has no cost of reading KV, it is the KV of a token over two thirds of the memory's
bandwidth: what DistServe's fits show on an A100 (0.82 MB a token of a 13B model in 0.63 us).
"""

from __future__ import annotations

from dataclasses import dataclass

from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.latency import DecodeTime, LinearLatency, PiecewiseLatency
from parrot_backend.sim.spec import LatencyModel


@dataclass(frozen=True, slots=True)
class PublishedEngine:
    """A model on a machine.

    Attributes:
        name: For settings and tables.
        latency: How long its steps take.
        kv_tokens: KV tokens that its memory holds.
        is_measured: Somebody measured these steps; else they are expected.
        source: Where the numbers come from.
    """

    name: str
    latency: LatencyModel
    kv_tokens: int
    is_measured: bool
    source: str


def _linear(
    base_s: float, prefill_s: float, decode_s: float, context_s: float, pair_s: float
) -> LinearLatency:
    model = StepTimeModel(base_s, prefill_s, decode_s, context_s, pair_s, num_samples=0, error=0.0)
    return LinearLatency(model)


A100_13B_DISTSERVE = PublishedEngine(
    "a100-13b-distserve",
    PiecewiseLatency(
        prefill_base_s=18.10254647e-3,
        per_prefill_token_s=0.1019122573e-3,
        per_squared_token_s=7.122264314e-9,
        small=DecodeTime(19.93470262e-3, 0.6269356524e-6, 0.03850697741e-3),
        large=DecodeTime(7.166188947e-3, 0.5798000403e-6, 0.1583109619e-3),
        threshold=95,
    ),
    kv_tokens=66_144,
    is_measured=True,
    source="OPT-13B on one A100-80G, DistServe's own engine: LLMServe/DistServe@82831f16, "
    "simdistserve/estimators/profile_data (Apache-2.0)",
)

A100_13B_VLLM = PublishedEngine(
    "a100-13b-vllm",
    PiecewiseLatency(
        prefill_base_s=22.05220479e-3,
        per_prefill_token_s=0.1405092387e-3,
        per_squared_token_s=8.076584823e-9,
        small=DecodeTime(23.47504101e-3, 0.5929344661e-6, 0.06072686126e-3),
        large=DecodeTime(20.20635617e-3, 0.4907727036e-6, 0.1200031386e-3),
        threshold=95,
    ),
    kv_tokens=66_144,
    is_measured=True,
    source="The same with the vLLM of that time (early 2024); same files",
)

# Slopes as in DistServe's fit of the vLLM of that time. Bases from the chain summaries (figure 11):
# a step at batch 1 with 550 tokens of context takes 20.9 ms in Parrot's engine and 21.0 ms in vLLM,
# and a prompt of 530 tokens 112 and 99 ms (weakly determined); the base of large batches, which no
# chain shows, is lower by as much as that of small ones.
_ARTIFACT_LARGE = DecodeTime(17.4e-3, 0.491e-6, 0.120e-3)

A100_13B_PARROT_ARTIFACT = PublishedEngine(
    "a100-13b-parrot-artifact",
    PiecewiseLatency(
        prefill_base_s=35e-3,
        per_prefill_token_s=0.1405e-3,
        per_squared_token_s=8.08e-9,
        small=DecodeTime(20.51e-3, 0.593e-6, 0.0607e-3),
        large=_ARTIFACT_LARGE,
        threshold=95,
    ),
    kv_tokens=66_144,
    is_measured=True,
    source="Vicuna-13B on one A100-80G, Parrot's engine: fitted to the chain summaries (figure "
    "11) of microsoft/ParrotServe@748a10a8, branch artifact; slopes as a100-13b-vllm",
)

A100_13B_VLLM_ARTIFACT = PublishedEngine(
    "a100-13b-vllm-artifact",
    PiecewiseLatency(
        prefill_base_s=22e-3,
        per_prefill_token_s=0.1405e-3,
        per_squared_token_s=8.08e-9,
        small=DecodeTime(20.61e-3, 0.593e-6, 0.0607e-3),
        large=_ARTIFACT_LARGE,
        threshold=95,
        mixes=False,
    ),
    kv_tokens=66_144,
    is_measured=True,
    source="The same with the artifact's vLLM, which does prompts and decodes in turn. Its client "
    "adds 224 ms to each call, which is not the engine's",
)

A100_13B_HUGGING_FACE_ARTIFACT = PublishedEngine(
    "a100-13b-hugging-face-artifact",
    _linear(29.9e-3, 203e-6, 38.5e-6, 0.61e-6, 14e-9),
    kv_tokens=66_144,
    is_measured=True,
    source="The same with the artifact's HuggingFace: 30.2 ms a token, 3.8 thousand prompt tokens "
    "a second (1.5 % mean error); decodes and attention as a100-13b-distserve. Its client adds "
    "258 ms to each call",
)

A100_7B = PublishedEngine(
    "a100-7b",
    _linear(12.1e-3, 57.8e-6, 11e-6, 0.39e-6, 9.1e-9),
    kv_tokens=108_800,
    is_measured=False,
    source="Llama-2-7B on one A100-80G: linear layers from microsoft/vidur@7d475133 (9.1 ms at "
    "batch 1, 9.8 ms at 64, 15 thousand prompt tokens a second), 3 ms a step for the host; "
    "attention scaled from DistServe's 13B by heads and layers; memory as in the paper's figure 15 "
    "(6800 blocks of 16)",
)

A6000_7B = PublishedEngine(
    "a6000-7b",
    _linear(19.5e-3, 137e-6, 48e-6, 1.03e-6, 18e-9),
    kv_tokens=48_000,
    is_measured=False,
    source="LLaMA-7B on one A6000: 20 ms a token at batch 1 and 6.4 thousand prompt tokens a "
    "second, scaled from the 8B rows of casys-kaist/LLMServingSim@5daddb21 (profiler/v0); memory "
    "as in the paper's figure 17 (3000 blocks of 16)",
)

RTX4090_LLAMA31_8B = PublishedEngine(
    "rtx4090-llama31-8b",
    _linear(18.552e-3, 92.53e-6, 31.9e-6, 0.1236e-6, 2.07e-9),
    kv_tokens=2588 * 16,
    is_measured=True,
    source="Llama-3.1-8B on one RTX 4090, vLLM 0.19: our fit to the first 100 of 300 requests of "
    "the timeline in casys-kaist/LLMServingSim@5daddb21, bench/examples (MIT); see "
    "benchmarks/validate_engine.py",
)

H200_LLAMA3_8B = PublishedEngine(
    "h200-llama3-8b",
    _linear(4.5e-3, 20.6e-6, 10e-6, 0.041e-6, 0.7e-9),
    kv_tokens=820_000,
    is_measured=False,
    source="Expected, not measured: 3.35 ms to read 16.1 GB of weights at 4.8 TB/s and about 1 ms "
    "for the host; 40 thousand prompt tokens a second as an H100 (same multiprocessors, vidur and "
    "LLMServingSim); 90 % of 141 GB less weights for KV of 131 kB a token",
)

#: All of them, by name.
PUBLISHED_ENGINES = {
    engine.name: engine
    for engine in (
        A100_13B_DISTSERVE,
        A100_13B_VLLM,
        A100_13B_PARROT_ARTIFACT,
        A100_13B_VLLM_ARTIFACT,
        A100_13B_HUGGING_FACE_ARTIFACT,
        A100_7B,
        A6000_7B,
        RTX4090_LLAMA31_8B,
        H200_LLAMA3_8B,
    )
}
