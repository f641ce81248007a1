"""A program: requests come, end, are aborted and preempted while shared attention goes on and off.

In float32 the log-probabilities must be those of vLLM's own attention, which computes the same
requests without any of that. Every request that went to its end is compared, up to the first token
that differs, which in float32 takes a near tie.

    python -m tests.contract.attention_storm found.json tiny hybrid drafts

``tiny``: a cache that is too small, and prompts computed in parts. ``hybrid``: layers with a window
and a softcap beside layers that see all, as in Gemma 2. ``drafts``: speculative decoding, which
loads numba; after that no engine of vLLM 0.32 starts in the process, so it comes last.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from vllm import LLM, SamplingParams

from parrot_backend.models import tiny_model_path

_VOCABULARY = 4000
_DRAFTS = {
    "method": "ngram",
    "num_speculative_tokens": 4,
    "prompt_lookup_max": 3,
    "prompt_lookup_min": 1,
}
#: What differs from an engine with room for everything.
STORMS: dict[str, dict[str, Any]] = {
    "tiny": {"kv_cache_memory_bytes": 4 << 20, "max_num_batched_tokens": 96},
    "drafts": {"speculative_config": _DRAFTS},
    "hybrid": {"max_num_batched_tokens": 160},
}


@dataclass(slots=True)
class Found:
    """What a storm showed.

    Attributes:
        compared_tokens: Log-probabilities that were compared.
        greatest_error: The most that one of them was off.
        parted: Requests whose tokens were not the same to the end.
        shared_steps: Steps in which requests shared reads.
        plain_steps: Other steps.
        switches: How often sharing was switched.
        aborts: Requests that were aborted.
        preemptions: How often a request lost its place.
    """

    compared_tokens: int = 0
    greatest_error: float = 0.0
    parted: int = 0
    shared_steps: int = 0
    plain_steps: int = 0
    switches: int = 0
    aborts: int = 0
    preemptions: int = 0


Decoded = tuple[list[int], list[float]]


#: A small Gemma 2.
_HYBRID: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "dtype": "float32",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "sliding_window": 128,
    "attn_logit_softcapping": 20.0,
    "vocab_size": _VOCABULARY,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def write_hybrid_model(folder: str) -> None:
    """Write a model with random weights that are large enough for attention to matter."""
    (Path(folder) / "config.json").write_text(json.dumps(_HYBRID))
    draw = torch.Generator().manual_seed(0)
    hidden, inner = _HYBRID["hidden_size"], _HYBRID["intermediate_size"]
    queries, keys = 64 * _HYBRID["num_attention_heads"], 64 * _HYBRID["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "pre_feedforward_layernorm": (hidden,),
        "post_feedforward_layernorm": (hidden,),
    }
    weights = {
        f"model.layers.{layer}.{name}.weight": 0.12 * torch.randn(shape, generator=draw)
        for layer in range(_HYBRID["num_hidden_layers"])
        for name, shape in shapes.items()
    }
    # Small, or each token would foretell itself, whatever attention says.
    embeddings = 0.06 * torch.randn(_VOCABULARY, hidden, generator=draw)
    weights["model.embed_tokens.weight"] = embeddings
    weights["model.norm.weight"] = torch.zeros(hidden)
    save_file(weights, Path(folder) / "model.safetensors")


def engine(folder: str, *, is_ours: bool, **changes: Any) -> Any:
    arguments = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 1536,
        "max_num_seqs": 16,
        "block_size": 32,
        "kv_cache_memory_bytes": 256 << 20,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "additional_config": {"parrot": {}} if is_ours else {},
        "scheduler_cls": "parrot_backend.vllm_plugin.ParrotScheduler" if is_ours else None,
        **changes,
    }
    return LLM(folder, **arguments)


def requests(draw: random.Random, count: int) -> list[tuple[list[int], SamplingParams]]:
    """Draw prompts that begin with one of the runs of a tree."""

    def tokens(length: int) -> list[int]:
        return [draw.randrange(10, _VOCABULARY) for _ in range(length)]

    runs: list[list[int]] = [tokens(200)]
    for _ in range(6):
        runs.append(draw.choice(runs) + tokens(draw.randint(40, 200)))
    return [
        (
            (draw.choice(runs) + tokens(draw.choice([1, 30, 90])))[:900],
            SamplingParams(
                max_tokens=draw.choice([3, 40, 90]),
                temperature=0.0,
                ignore_eos=True,
                detokenize=False,
                logprobs=0,
            ),
        )
        for _ in range(count)
    ]


def decoded(output: Any) -> Decoded:
    one = output.outputs[0]
    pairs = zip(one.logprobs, one.token_ids, strict=True)
    return list(one.token_ids), [entry[token].logprob for entry, token in pairs]


def run_storm(llm: Any, todo: list[Any], draw: random.Random, found: Found) -> dict[int, Decoded]:
    """Run requests that come a few at a time; return those that came to their end."""
    core = llm.llm_engine.engine_core.engine_core
    policy, alive, done = core.scheduler.hooks, set[int](), dict[int, Decoded]()
    before = policy.state()["attention"]
    waiting = list(enumerate(todo))
    is_on, preempted = True, dict[str, int]()
    while waiting or alive:
        for number, (prompt, parameters) in waiting[: draw.choice([0, 0, 1, 3])]:
            request = {"prompt_token_ids": prompt}
            llm.llm_engine.add_request(str(number), request, parameters)
            alive.add(number)
            waiting.pop(0)
        if draw.random() < 0.05:
            is_on = not is_on
            policy.call("configure", [{"share_attention": is_on}], 0.0)
            found.switches += 1
        if alive and draw.random() < 0.04:
            number = draw.choice(sorted(alive))
            llm.llm_engine.abort_request([str(number)])
            alive.remove(number)
            found.aborts += 1
        for output in llm.llm_engine.step():
            if output.finished and int(output.request_id) in alive:
                alive.remove(int(output.request_id))
                done[int(output.request_id)] = decoded(output)
        preempted |= {name: each.num_preemptions for name, each in core.scheduler.requests.items()}
    after = policy.state()["attention"]
    found.preemptions = sum(preempted.values())
    found.shared_steps = after["shared_steps"] - before["shared_steps"]
    found.plain_steps = after["steps"] - before["steps"] - found.shared_steps
    return done


def compare(found: Found, done: dict[int, Decoded], wanted: list[Decoded]) -> None:
    for number, (ids, values) in done.items():
        pairs = zip(ids, wanted[number][0], values, wanted[number][1], strict=True)
        for one, other, value, truth in pairs:
            if one != other:
                found.parted += 1
                break
            found.compared_tokens += 1
            found.greatest_error = max(found.greatest_error, abs(value - truth))


def storm(name: str, folder: str) -> Found:
    draw, found = random.Random(name), Found()
    todo = requests(draw, 30)
    prompts: list[Any] = [{"prompt_token_ids": prompt} for prompt, _ in todo]
    stock = engine(folder, is_ours=False)
    outputs = stock.generate(prompts, [each for _, each in todo], use_tqdm=False)
    ours = engine(folder, is_ours=True, **STORMS[name])
    compare(found, run_storm(ours, todo, draw, found), [decoded(each) for each in outputs])
    return found


def main(path: str, *names: str) -> None:
    all_found: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            if name == "hybrid":
                write_hybrid_model(folder)
            model = folder if name == "hybrid" else str(tiny_model_path())
            all_found[name] = asdict(storm(name, model))
    Path(path).write_text(json.dumps(all_found))


if __name__ == "__main__":
    main(*sys.argv[1:])
