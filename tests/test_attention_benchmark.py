"""The batches of the benchmark of attention are what their numbers say."""

from __future__ import annotations

import itertools
import json

import pytest

from benchmarks.attention_shapes import MODELS, SHAPES, Model, Shape
from scripts.benchmark_tables.attention import attention_table


def distinct_tokens(prompts: list[list[int]]) -> int:
    """Return the size of the tree that the prompts make."""
    ranked = sorted(prompts)
    total = len(ranked[0])
    for before, prompt in itertools.pairwise(ranked):
        pairs = zip(before, prompt, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        total += len(prompt) - same
    return total


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
def test_prompts_share_what_they_are_to_share(shape: Shape) -> None:
    prompts = shape.prompts()
    assert len(prompts) == shape.num_requests == 32
    # Two random tokens may be the same where prompts part.
    assert shape.num_distinct_tokens - 32 <= distinct_tokens(prompts) <= shape.num_distinct_tokens
    for prefix in shape.prefixes():
        members = [prompt for prompt in prompts if prompt[: len(prefix)] == prefix]
        assert len(members) == shape.members
    assert shape.num_kv_tokens(100) >= shape.num_distinct_tokens + 32 * 100


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_bytes_follow_from_the_model(model: Model) -> None:
    config = json.loads(json.dumps(model.config()))
    per_token = 2 * config["num_key_value_heads"] * config["head_dim"] * 2
    assert model.kv_bytes(3) == 3 * per_token * config["num_hidden_layers"]
    # All layers together are three times a usual cache of the last level.
    assert model.kv_bytes(6144) / model.num_layers == 24 * 2**20


def test_the_table_has_the_newest_row_of_each_shape() -> None:
    spans = {f"{name}_ms_{part}": "2" for name in ("stock", "shared") for part in ("p20", "p80")}
    plain = {**spans, "model": "gqa", "bound_ms": "1.25"}
    rows = [
        {**plain, "shape": "a", "stock_ms_median": "9", "shared_ms_median": "9", "ratio": "1"},
        {**plain, "shape": "b", "stock_ms_median": "6", "shared_ms_median": "2", "ratio": "3"},
        {**plain, "shape": "a", "stock_ms_median": "8", "shared_ms_median": "4", "ratio": "2"},
    ]
    lines = attention_table(rows).splitlines()
    assert lines[2:] == [
        "| gqa | a | 8 [2, 2] | 4 [2, 2] | 2.00 x | 1.25 |",
        "| gqa | b | 6 [2, 2] | 2 [2, 2] | 3.00 x | 1.25 |",
    ]
