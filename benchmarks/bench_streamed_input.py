"""A prompt that is fed to vLLM while the value in it is still being generated.

A consumer's prompt is a constant, the value that a producer generates, and a tail. Variants
alternate on one engine: the whole prompt sent when the producer has ended, with nothing of it
cached ("late") or with its constant in the cache after a request that ran beside the producer
("fill", what early fill does); or sent piece by piece with vLLM's streaming input, where the
constant goes first, then every 1, 8 or 32 tokens of the value, then the rest ("stream n"); or as
with early fill, with one more filling request for every 32 tokens of the value ("refill 32").
Measured are the time from the producer's last token to the consumer's first, the producer's own
time, and the time of both. The bound of the first is a consumer whose whole prompt is in the cache
("cached"), measured in the same run.

After each trial the consumer's prompt is run again with nothing cached, to compare the outputs: a
prefill that was cut differently may round differently in bfloat16. Prompts are token ids, and the
value goes in as it was generated.

    python -m benchmarks.bench_streamed_input [--chains 1] [--repeat 7] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import Cell, append_rows, spread
from benchmarks.engine_lab import (
    LabEngine,
    alternate,
    engines,
    shared_arguments,
    tiny_config,
    words,
)

VALUE_TOKENS = (64, 256, 1024)
PRODUCER_TOKENS, CONSTANT_TOKENS, TAIL_TOKENS, OUTPUT_TOKENS = 32, 256, 32, 16

#: Variant -> how the consumer begins beside its producer, and with how many tokens of the value
#: at a time.
VARIANTS: dict[str, tuple[str, int]] = {
    "late": ("", 0),
    "fill": ("fill", max(VALUE_TOKENS)),
    "refill 32": ("fill", 32),
    "stream 1": ("stream", 1),
    "stream 8": ("stream", 8),
    "stream 32": ("stream", 32),
    "cached": ("", 0),
}

FIGURES = ("ttft_ms", "producer_ms", "whole_ms")


@dataclass(slots=True)
class Trial:
    """What one chain of a producer and a consumer gave.

    Attributes:
        ttft_ms: From the producer's last token to the consumer's first.
        producer_ms: From the begin to the producer's last token.
        whole_ms: From the begin of the producer to the end of the consumer.
        thrown: Tokens that were sampled only because each request and each piece must sample.
        prompt: The consumer's.
        output: The consumer's.
        is_same: Whether the prompt gave this output when it was run again.
    """

    ttft_ms: float
    producer_ms: float
    whole_ms: float
    thrown: int
    prompt: list[int]
    output: list[int]
    is_same: bool = False


@dataclass(slots=True)
class Output:
    """Token ids as they come, and when each came."""

    ids: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    is_complete: bool = False
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, ids: Sequence[int], is_last: bool) -> None:
        """Append what came now."""
        self.ids += ids
        self.token_s += [time.perf_counter()] * len(ids)
        self.is_complete = is_last
        self._grown.set()

    async def reach(self, count: int) -> None:
        """Wait until there are so many tokens, or no more will come."""
        while len(self.ids) < count and not self.is_complete:
            self._grown.clear()
            await self._grown.wait()


@dataclass(frozen=True, slots=True)
class Texts:
    """Token ids of the constant texts of one chain."""

    producer: list[int]
    constant: list[int]
    tail: list[int]


class Client:
    """Calls vLLM with token ids, past the engine seam: streaming input is not behind it."""

    def __init__(self, lab: LabEngine) -> None:
        self._client = lab.engine.client
        self._tokenizer = self._client.get_tokenizer()
        self._numbers = itertools.count()

    def texts(self, seed: object) -> Texts:
        """Return texts of the wanted lengths, always the same for a seed."""
        lengths = PRODUCER_TOKENS, CONSTANT_TOKENS, TAIL_TOKENS
        return Texts(*(self._ids(length, (seed, i)) for i, length in enumerate(lengths)))

    async def run(self, prompt: Any, max_tokens: int, output: Output) -> None:
        """Run a request to its end.

        Args:
            prompt: Token ids, or a generator of the prompt's pieces.
            max_tokens: Length of the output, of the first piece for a generator.
            output: Takes the tokens.
        """
        from vllm.inputs import tokens_input

        stream = self._client.generate(
            tokens_input(list(prompt)) if isinstance(prompt, list) else prompt,
            _greedy(max_tokens),
            f"streamed-{next(self._numbers)}",
        )
        async for step in stream:
            output.add(step.outputs[0].token_ids, step.finished)

    def _ids(self, count: int, seed: object) -> list[int]:
        # A word is a token or more.
        ids: list[int] = self._tokenizer.encode(words(count, seed), add_special_tokens=False)
        return ids[:count]


def _greedy(max_tokens: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=True,
        output_kind=RequestOutputKind.DELTA,
    )


async def pieces(texts: Texts, value: Output, size: int) -> AsyncGenerator[Any, None]:
    """Yield a consumer's prompt as the value grows; all pieces but the last sample one token."""
    from vllm.engine.protocol import StreamingInput
    from vllm.inputs import tokens_input

    yield StreamingInput(tokens_input(list(texts.constant)), _greedy(1))
    fed = 0
    while True:
        await value.reach(fed + size)
        if value.is_complete:
            break
        begin, fed = fed, len(value.ids)
        yield StreamingInput(tokens_input(value.ids[begin:fed]), _greedy(1))
    yield StreamingInput(tokens_input(value.ids[fed:] + texts.tail), _greedy(OUTPUT_TOKENS))


async def fill(client: Client, texts: Texts, value: Output, size: int, into: Output) -> None:
    """Compute a consumer's prompt as the value grows, one request of one token after the other."""
    filled = 0
    while not value.is_complete:
        await client.run(texts.constant + value.ids[:filled], 1, into)
        await value.reach(filled + size)
        filled = len(value.ids) // size * size


async def chain(client: Client, variant: str, texts: Texts, num_value: int) -> Trial:
    """Run a producer and its consumer."""
    value, output, filling = Output(), Output(), Output()
    how, size = VARIANTS[variant]
    beside: list[asyncio.Task[None]] = []
    begin_s = time.perf_counter()
    if how == "stream":
        prompt = pieces(texts, value, size)
        beside = [asyncio.create_task(client.run(prompt, OUTPUT_TOKENS, output))]
    elif how == "fill":
        beside = [asyncio.create_task(fill(client, texts, value, size, filling))]
    await client.run(texts.producer, num_value, value)
    ended_s = ready_s = value.token_s[-1]
    whole = [*texts.constant, *value.ids, *texts.tail]
    if variant == "cached":
        await client.run(whole, OUTPUT_TOKENS, Output())
        ready_s = time.perf_counter()
    if how != "stream":
        await client.run(whole, OUTPUT_TOKENS, output)
    await asyncio.gather(*beside)
    # Each piece but the last gave one token that is no part of the context.
    thrown = len(output.ids) - OUTPUT_TOKENS
    return Trial(
        ttft_ms=(output.token_s[thrown] - ready_s) * 1e3,
        producer_ms=(ended_s - begin_s) * 1e3,
        whole_ms=(output.token_s[-1] - ready_s + ended_s - begin_s) * 1e3,
        thrown=thrown + len(filling.ids),
        prompt=whole,
        output=output.ids[thrown:],
    )


async def trial(
    lab: LabEngine, client: Client, variant: str, num_value: int, seeds: Sequence[object]
) -> list[Trial]:
    """Run chains side by side, with nothing cached; then check their outputs."""
    texts = [client.texts(seed) for seed in seeds]
    assert await lab.engine.reset_prefix_cache(), "nothing runs"
    trials = await asyncio.gather(*(chain(client, variant, each, num_value) for each in texts))
    assert await lab.engine.reset_prefix_cache(), "nothing holds KV any more"
    for each in trials:
        again = Output()
        await client.run(each.prompt, OUTPUT_TOKENS, again)
        each.is_same = again.ids == each.output
    return trials


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all variants with values of all lengths."""
    names = list(itertools.product(VALUE_TOKENS, VARIANTS))
    trials: dict[tuple[int, str], list[Trial]] = {name: [] for name in names}
    async with engines(streamed=tiny_config(scheduler="vllm")) as labs:
        lab = labs["streamed"]
        client = Client(lab)
        for variant in VARIANTS:
            await trial(lab, client, variant, VALUE_TOKENS[0], [variant])
        order = alternate([f"{number}" for number in range(len(names))], arguments.repeat)
        for number, position in enumerate(order):
            tokens, variant = name = names[int(position)]
            seeds = [(number // len(names), each) for each in range(arguments.chains)]
            trials[name] += await trial(lab, client, variant, tokens, seeds)
    return [row_of(*name, found, arguments) for name, found in trials.items()]


def row_of(
    tokens: int, variant: str, trials: Sequence[Trial], arguments: argparse.Namespace
) -> dict[str, Cell]:
    """Return medians over all trials."""
    row: dict[str, Cell] = {
        "value_tokens": tokens,
        "variant": variant,
        "chains": arguments.chains,
        "trials": len(trials),
        "same": sum(trial.is_same for trial in trials),
        "thrown": spread([trial.thrown for trial in trials]).median,
    }
    for name in FIGURES:
        found = spread([getattr(trial, name) for trial in trials])
        row[name] = round(found.median, 2)
        row[f"{name}_p20"], row[f"{name}_p80"] = round(found.p20, 2), round(found.p80, 2)
    return row


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times better than early fill each is."""
    base = {row["value_tokens"]: row for row in rows if row["variant"] == "fill"}
    for row in rows:
        line = f"{row['value_tokens']:>5} {row['variant']:<9}"
        for name in FIGURES:
            value, reference = row[name], base[row["value_tokens"]][name]
            assert isinstance(value, float)
            assert isinstance(reference, float)
            bounds = f"[{row[f'{name}_p20']:.4g}, {row[f'{name}_p80']:.4g}]"
            line += f"   {name} {value:<6.4g} {bounds:<14} {reference / value:.2f}x"
        print(f"{line}   same {row['same']}/{row['trials']}   thrown {row['thrown']:.0f}")


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=1, help="run side by side")
    shared_arguments(parser, repeat=7)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('streamed_input', rows)}")


if __name__ == "__main__":
    main()
