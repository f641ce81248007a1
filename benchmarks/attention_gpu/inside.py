"""What is measured inside vLLM on a GPU: models of full size, batches, and ways of attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from benchmarks.attention_shapes import Model, Shape

#: The largest pages that both backends take; ours loads them by descriptor on Hopper.
PAGE_TOKENS = 64
BATCHES = (64, 16)
PREFIXES = (6144, 2048, 16384)
GROUPS = (1, 4, 8)
OWN_TOKENS = 128
#: Nothing is shared: what sharing must not make slower.
ALONE_TOKENS = (128, 1024)
MOST_TOKENS = max(PREFIXES) + 1024
#: What a card of 139 GiB has for KV beside the weights of the larger model.
MOST_KV_BYTES = 90 * 2**30

#: Shapes of Llama 3 8B and Llama 2 13B (their ``config.json``), for longer texts than the latter's.
MODELS = {
    "llama-3-8b": Model(
        "llama-3-8b", 32, 8, 128, 4096, 14336, 32, vocabulary=128256, max_tokens=MOST_TOKENS
    ),
    "llama-2-13b": Model(
        "llama-2-13b", 40, 40, 128, 5120, 13824, 40, vocabulary=32000, max_tokens=MOST_TOKENS
    ),
}
TINY_MODEL = Model("tiny", 4, 2, 64, hidden=256, intermediate=512, num_layers=2)


@dataclass(frozen=True, slots=True)
class Way:
    """How an engine computes attention.

    Attributes:
        name: Of its rows.
        shares: Requests share reads, by our backend.
        options: Of the plug-in.
        more: Arguments of vLLM.
    """

    name: str
    shares: bool
    options: Mapping[str, bool] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


#: The first is what the others are compared with. All have vLLM's CUDA graphs on.
WAYS = {
    way.name: way
    for way in (
        Way("flash", False, more={"attention_backend": "FLASH_ATTN"}),
        Way("graphs", True),
        Way("pieces", True, options={"attention_graphs": False}),
        Way("triton", False, more={"attention_backend": "TRITON_ATTN"}),
    )
}
#: On CPUs there is one backend of vLLM's, and no graph.
DRY_WAYS = {way.name: way for way in (Way("vllm", False), Way("shared", True))}


def shapes() -> dict[str, Shape]:
    """Return the batches by name, the most telling first."""
    made = [
        Shape(f"{groups}x{batch // groups}@{prefix}", ((groups, prefix),), batch // groups, own)
        for prefix, groups, batch, own in product(PREFIXES, GROUPS, BATCHES, (OWN_TOKENS,))
    ]
    made += [
        Shape(f"none-{batch}@{own}", (), batch, own)
        for batch, own in product(BATCHES, ALONE_TOKENS)
    ]
    return {shape.name: shape for shape in made}


def dry_shapes() -> dict[str, Shape]:
    """Return two small batches, of which one shares."""
    made = (Shape("2x2@1024", ((2, 1024),), 2, 64), Shape("none-3@64", (), 3, 64))
    return {shape.name: shape for shape in made}


def fitting(model: Model, wanted: Mapping[str, Shape], generated: int) -> Iterator[Shape]:
    """Yield the batches whose KV fits on the card, and print the others."""
    for shape in wanted.values():
        size = model.kv_bytes(shape.num_kv_tokens(generated))
        if size <= MOST_KV_BYTES:
            yield shape
        else:
            print(f"{model.name} {shape.name}: not run, its KV takes {size / 2**30:.0f} GiB")
