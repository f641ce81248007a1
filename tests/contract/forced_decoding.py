"""A program: the log-probabilities of given tokens, decoded one by one in real vLLM.

Greedy outputs soon differ at near ties, and nothing can be compared after that. So float32 decides
each output once, and every other run is made to emit the same tokens: what differs from step to
step is then the arithmetic alone.

    python -m tests.contract.forced_decoding found.npz bfloat16 float16

The file gets [requests, tokens] of ``truth`` (float32, vLLM's attention), and for each number
format of ``bfloat16_stock`` and ``bfloat16_shared`` (without and with shared reads), with what was
counted: ``bfloat16_shared_steps`` (all), ``bfloat16_shared_shared_steps`` (those that shared).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from vllm import LLM, SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from parrot_backend.models import tiny_model_path

NUM_TOKENS = 320
_VOCABULARY = 4000
_PAGE_TOKENS = 32

Floats = npt.NDArray[np.float64]


class Forced(AdapterLogitsProcessor):
    """Lets a request emit the tokens of its argument ``forced`` only, one after another."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., Any] | None:
        forced = (params.extra_args or {}).get("forced")
        if forced is None:
            return None

        def force(output_ids: list[int], logits: Any) -> Any:
            wanted = logits[forced[len(output_ids)]].clone()
            logits.fill_(float("-inf"))
            logits[forced[len(output_ids)]] = wanted
            return logits

        return force


def tokens(seed: object, count: int) -> list[int]:
    draw = random.Random(repr(seed))
    return [draw.randrange(10, _VOCABULARY) for _ in range(count)]


def prompts() -> list[list[int]]:
    """Return two groups, a group of each of two levels within the first, and a loner."""
    outer, inner, deep, other = (tokens(name, 10 * _PAGE_TOKENS) for name in "oide")
    return [
        *(outer + tokens(("outer", i), 20 + i) for i in range(2)),
        *(outer + inner + tokens(("inner", i), 9 * i + 1) for i in range(3)),
        *(outer + inner + deep + tokens(("deep", i), 33 * i + 31) for i in range(2)),
        *(other + tokens(("other", i), 40) for i in range(3)),
        tokens("alone", 300),
    ]


def engine(dtype: Any, *, is_ours: bool) -> Any:
    return LLM(
        str(tiny_model_path()),
        dtype=dtype,
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=16,
        block_size=_PAGE_TOKENS,
        kv_cache_memory_bytes=64 << 20,
        scheduler_cls="parrot_backend.vllm_plugin.ParrotScheduler" if is_ours else None,
        additional_config={"parrot": {}} if is_ours else {},
        logits_processors=[Forced],
        disable_log_stats=True,
    )


def hooks_of(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler.hooks


def decode(llm: Any, forced: Sequence[Sequence[int]] | None) -> tuple[list[list[int]], Floats]:
    """Return tokens and log-probabilities; those who share a prefix begin when it is there."""
    texts = [{"prompt_token_ids": prompt} for prompt in prompts()]
    assert llm.reset_prefix_cache()
    # Without this the first of each group and the others would compute the prefix side by side.
    for first in (0, 2, 5, 7):
        llm.generate([texts[first]], SamplingParams(max_tokens=1), use_tqdm=False)
    parameters = [
        SamplingParams(
            max_tokens=NUM_TOKENS,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            logprobs=0,
            extra_args=None if forced is None else {"forced": forced[number]},
        )
        for number in range(len(texts))
    ]
    outputs = [each.outputs[0] for each in llm.generate(texts, parameters, use_tqdm=False)]
    found = [
        [entry[token].logprob for entry, token in zip(one.logprobs, one.token_ids, strict=True)]
        for one in outputs
    ]
    return [list(one.token_ids) for one in outputs], np.array(found)


def compare(dtype: str, ids: list[list[int]]) -> dict[str, Any]:
    """Decode the same tokens without and with shared reads."""
    llm = engine(dtype, is_ours=True)
    found: dict[str, Any] = {}
    for way, is_on in (("stock", False), ("shared", True)):
        hooks_of(llm).call("configure", [{"share_attention": is_on}], 0.0)
        before = hooks_of(llm).state()["attention"]
        said, found[f"{dtype}_{way}"] = decode(llm, ids)
        assert said == ids, "the tokens were not the ones that were asked for"
        after = hooks_of(llm).state()["attention"]
        for count in ("steps", "shared_steps"):
            found[f"{dtype}_{way}_{count}"] = after[count] - before[count]
    return found


def main(path: str, *dtypes: str) -> None:
    ids, truth = decode(engine("float32", is_ours=False), None)
    found: dict[str, Any] = {"truth": truth}
    for dtype in dtypes:
        found |= compare(dtype, ids)
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
