"""What one call of a chat model costs through LangChain and Parrot: ``ChatParrot.invoke``.

Claim: a single call is at most 2 ms slower than the same chat completion with the ``openai`` client
on vLLM's own OpenAI server, although LangChain and Parrot's coordination lie in between. Both
servers drive the very same engine in one process; the contenders take turns, every prompt is new,
and every call generates the same number of tokens. ``ChatOpenAI`` shows LangChain's own part, and
``submit``, Parrot's client without LangChain, the server's.

    python -m benchmarks.bench_langchain_call [--count 200] [--tokens 1 16] [--repeat 5]
        [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import OpenAI

from benchmarks.common import Cell, append_rows, cells, percentile, spread
from parrot_backend.demo.host_process import HostInfo, start_host
from parrot_integrations import ParrotClient
from parrot_integrations.langchain import ChatParrot
from parrot_integrations.planning.submits import Terms, to_request

GOAL_MS = 2.0
_WARM_UP_CALLS = 30
_ANY_KEY = "unused"

#: Takes a question and the number of tokens to generate.
Caller = Callable[[str, int], object]


def callers(host: HostInfo) -> dict[str, Caller]:
    """Return the contenders by name."""
    openai = OpenAI(base_url=f"{host.vllm_url}/v1", api_key=_ANY_KEY)
    chat_openai = ChatOpenAI(
        model=host.model, base_url=f"{host.vllm_url}/v1", api_key=lambda: _ANY_KEY, temperature=0
    )
    chat_parrot = ChatParrot(model=host.model, base_url=host.parrot_url, temperature=0)

    def call_openai(question: str, tokens: int) -> object:
        return openai.chat.completions.create(
            model=host.model,
            messages=[{"role": "user", "content": question}],
            max_tokens=tokens,
            temperature=0,
            extra_body={"ignore_eos": True},
        )

    def call_chat_openai(question: str, tokens: int) -> object:
        return chat_openai.invoke(question, max_tokens=tokens, extra_body={"ignore_eos": True})

    client = ParrotClient(host.parrot_url)

    def call_submit(question: str, tokens: int) -> object:
        (call,) = chat_parrot.to_model_calls(
            [HumanMessage(question)], max_tokens=tokens, ignore_eos=True
        )
        return client.submit(to_request([call], Terms()))

    def call_chat_parrot(question: str, tokens: int) -> object:
        return chat_parrot.invoke(question, max_tokens=tokens, ignore_eos=True)

    return {
        "openai": call_openai,
        "chat_openai": call_chat_openai,
        "submit": call_submit,
        "chat_parrot": call_chat_parrot,
    }


def time_calls(
    contenders: Mapping[str, Caller], count: int, tokens: int, label: str
) -> dict[str, list[float]]:
    """Return the milliseconds of so many calls of each contender, taken by turns."""
    times_ms: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(count):
        # Whoever comes first changes, so that none always follows the same other one.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            question = f"{label} {number} {name}: why is the sky blue, and the sea?"
            start_s = time.perf_counter()
            contenders[name](question, tokens)
            times_ms[name].append((time.perf_counter() - start_s) * 1e3)
    return times_ms


def measure(host: HostInfo, arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all output lengths."""
    contenders = callers(host)
    time_calls(contenders, _WARM_UP_CALLS, 1, "warm up")
    return [
        measure_tokens(contenders, tokens, arguments.count, arguments.repeat, host.model)
        for tokens in arguments.tokens
    ]


def measure_tokens(
    contenders: Mapping[str, Caller], tokens: int, count: int, repeat: int, model: str
) -> dict[str, Cell]:
    """Measure one output length; print and return its row."""
    p50_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(repeat):
        times_ms = time_calls(contenders, count, tokens, f"{tokens} {round_number}")
        for name, values in times_ms.items():
            p50_ms[name].append(percentile(values, 0.5))
    added_ms = differences(p50_ms["chat_parrot"], p50_ms["openai"])
    row: dict[str, Cell] = {"model": model, "max_tokens": tokens, "count": count, "repeat": repeat}
    for name, values in p50_ms.items():
        row |= cells(f"{name}_p50_ms", spread(values))
        print(f"{tokens:>4} tokens   {name:>12} p50 {spread(values)!s:>24} ms")
    row |= cells("added_ms", spread(added_ms))
    found = spread(added_ms)
    verdict = "within" if found.median <= GOAL_MS else "NOT within"
    print(f"{tokens:>4} tokens   ChatParrot adds {found} ms to openai: {verdict} {GOAL_MS:g} ms")
    return row


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return what is added, repetition by repetition."""
    return [mine - other for mine, other in zip(ours, theirs, strict=True)]


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure on one engine with both servers."""
    options = [] if arguments.model is None else ["--model", arguments.model]
    with tempfile.TemporaryDirectory() as folder:
        async with start_host(options, Path(folder) / "server.log") as host:
            return await asyncio.to_thread(measure, host.info, arguments)


def main() -> None:
    """Print medians for each output length; save them when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="calls per repetition")
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", help="model path or name; the bundled tiny model by default")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    if arguments.save:
        print(f"rows appended to {append_rows('langchain_call', rows)}")


if __name__ == "__main__":
    main()
