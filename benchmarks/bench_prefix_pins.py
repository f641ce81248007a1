"""A working set larger than the KV cache: prefixes kept by need against the least recently used.

Sessions go on side by side. Each has a document of its own that begins all its prompts, and asks
about it several times, with a pause before each question in which the client does something else.
The documents together are larger than the KV cache, so that a cache that forgets what was used
least recently has forgotten a document when its next question comes. Three variants alternate:
vLLM as it is, Parrot without pins, Parrot with pins. Measured are the prompt tokens that were
computed; at the least, each document and each question is computed once.

    python -m benchmarks.bench_prefix_pins [--sessions 12] [--questions 5] [--cache-share 0.5]
        [--pause-s 0.3] [--repeat 5] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.engine_lab import alternate, shared_arguments, tiny_config, words
from benchmarks.server_lab import LabServer, call, servers
from parrot_backend.server.config import ServerSettings

DOCUMENT_WORDS, QUESTION_WORDS, ANSWER_TOKENS = 800, 20, 24

#: KV of one token of the tiny model: 2 layers, keys and values, 2 heads of 64 in 2 bytes.
KV_BYTES_PER_TOKEN = 1024

#: Tokens of a word of the documents, for the size of the cache only.
TOKENS_PER_WORD = 1.45

#: Variant -> server, options of the plug-in.
VARIANTS: dict[str, tuple[str, dict[str, bool | float]]] = {
    "vllm": ("stock", {}),
    "no pins": ("plugin", {"pin": False}),
    "pins 0.5": ("plugin", {"pin": True, "max_pinned_share": 0.5}),
    "pins 0.75": ("plugin", {"pin": True, "max_pinned_share": 0.75}),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial gave.

    Attributes:
        prompt_tokens: Length of all prompts.
        cached_tokens: The part that was found in the cache.
        least_tokens: What must be computed if nothing is ever computed twice.
        time_s: From the first submit to the last answer.
    """

    prompt_tokens: int
    cached_tokens: int
    least_tokens: int
    time_s: float

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that were computed."""
        return self.prompt_tokens - self.cached_tokens


async def session(
    server: LabServer, arguments: argparse.Namespace, seed: int, number: int
) -> tuple[int, int, int]:
    """Run a session; return prompt tokens, cached tokens, and the least to be computed."""
    document = words(DOCUMENT_WORDS, (seed, number))
    nodes = [
        call(
            f"c{i}", f"{document}\nQuestion: {{{{input:q{i}}}}} {{{{output:a{i}}}}}", ANSWER_TOKENS
        )
        for i in range(arguments.questions)
    ]
    questions = [{"name": f"q{i}"} for i in range(arguments.questions)]
    answers = [f"a{i}" for i in range(arguments.questions)]
    name = await server.submit(nodes, answers, variables=questions, wait=False)
    pause = random.Random(repr((seed, number)))
    for i, answer in enumerate(answers):
        await asyncio.sleep(arguments.pause_s * pause.uniform(0.5, 1.5))
        await server.set(name, f"q{i}", words(QUESTION_WORDS, (seed, number, i)))
        await server.wait(name, answer)
    usages = [node["usage"] for node in await server.end(name)]
    prompts = [usage["prompt_tokens"] for usage in usages]
    # All prompts but the first have the document in common with it.
    least = max(prompts) + (len(prompts) - 1) * int(QUESTION_WORDS * TOKENS_PER_WORD)
    return sum(prompts), sum(usage["cached_tokens"] for usage in usages), least


async def trial(server: LabServer, arguments: argparse.Namespace, seed: int) -> Trial:
    """Run all sessions side by side."""
    begin_s = time.perf_counter()
    found = await asyncio.gather(
        *(session(server, arguments, seed, number) for number in range(arguments.sessions))
    )
    time_s = time.perf_counter() - begin_s
    await server.forget()
    prompts, cached, least = (sum(column) for column in zip(*found, strict=True))
    return Trial(prompts, cached, least, time_s)


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all variants."""
    document_tokens = DOCUMENT_WORDS * TOKENS_PER_WORD
    cache_tokens = int(arguments.cache_share * arguments.sessions * document_tokens)
    config = tiny_config(max_model_len=2048, kv_cache_bytes=cache_tokens * KV_BYTES_PER_TOKEN)
    stock = tiny_config(
        max_model_len=2048, kv_cache_bytes=cache_tokens * KV_BYTES_PER_TOKEN, scheduler="vllm"
    )
    # Filling ahead of need would hide how often a document is computed.
    settings = ServerSettings(early_fill=False)
    order = alternate(list(VARIANTS), arguments.repeat)
    trials: dict[str, list[Trial]] = {name: [] for name in VARIANTS}
    async with servers(stock=(stock, settings), plugin=(config, settings)) as labs:
        for lab in labs.values():
            await trial(lab, arguments, seed=-1)
        for number, variant in enumerate(order):
            name, options = VARIANTS[variant]
            if options:
                await labs[name].engine.configure_plugin(**options)
            trials[variant].append(await trial(labs[name], arguments, number // len(VARIANTS)))
    return [row_of(variant, found, arguments) for variant, found in trials.items()]


def row_of(variant: str, trials: Sequence[Trial], arguments: argparse.Namespace) -> dict[str, Cell]:
    """Return medians over trials."""
    computed = spread([each.computed_tokens / each.least_tokens for each in trials])
    hits = spread([each.cached_tokens / each.prompt_tokens for each in trials])
    time_s = spread([each.time_s for each in trials])
    return {
        "variant": variant,
        "sessions": arguments.sessions,
        "questions": arguments.questions,
        "cache_share": arguments.cache_share,
        "pause_s": arguments.pause_s,
        "trials": len(trials),
        **cells("computed_over_least", computed),
        **cells("hit_rate", hits),
        **cells("time_s", time_s),
    }


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times less than with vLLM each is."""
    measured = ("computed_over_least", "time_s")
    print(f"{'':>10}" + "".join(f"{name:>32}" for name in measured))
    for row in rows:
        print(f"{row['variant']:>10}" + "".join(shown(row, rows[0], name) for name in measured))


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--cache-share", type=float, default=0.5)
    parser.add_argument("--pause-s", type=float, default=0.3)
    shared_arguments(parser, repeat=5)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('prefix_pins', rows)}")


if __name__ == "__main__":
    main()
