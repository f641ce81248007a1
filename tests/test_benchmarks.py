"""Benchmarks' own parts: the pretended GPU's cache, and tables of the rows that they write."""

from __future__ import annotations

import pytest

from benchmarks.bench_metagpt import Turn, name_row, parser, rows
from benchmarks.bulk_load import Bulk
from benchmarks.gpu_like import BlockCache
from examples.metagpt.records import RunResult
from parrot_backend.core.prompt import PartKind, PromptPart
from scripts.benchmark_tables.__main__ import PLACES, Place
from scripts.benchmark_tables.agents import metagpt_table
from scripts.benchmark_tables.markdown import ROOT


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.name} in {place.page}")
def test_each_table_has_its_markers(place: Place) -> None:
    page = (ROOT / place.page).read_text()
    assert page.count(f"<!-- {place.name} -->") == page.count(f"<!-- end {place.name} -->") == 1


def _part(*words: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, " ".join(words))


def test_the_cache_knows_whole_blocks_however_prompts_are_cut() -> None:
    cache = BlockCache()
    words = [f"w{i}" for i in range(40)]
    cache.remember(cache.boundaries(None, [_part(*words)]))
    cut = [_part(*words[:20]), _part(" ", *words[20:35]), _part(" other", "end")]
    assert cache.cached_tokens(cache.boundaries(None, cut)) == 32
    assert cache.cached_tokens(cache.boundaries("salt", cut)) == 0


def test_the_last_blocks_of_a_prompt_are_forgotten_first() -> None:
    cache = BlockCache(max_prefixes=3)
    words = [f"w{i}" for i in range(64)]
    prompt = cache.boundaries(None, [_part(*words)])
    cache.remember(prompt)
    assert cache.cached_tokens(prompt) == 48


def test_a_table_shows_the_rows_of_metagpt() -> None:
    call = {"prompt_tokens": 10, "cached_tokens": 4}
    turn = Turn([RunResult("a way", 2.0, [call], None)], Bulk(end_s=1e9))
    given = parser().parse_args([])
    found = rows(name_row("scripted", 4, "none", 0.0, given), {"a way": [turn]}, [1.0])
    shown = {key: "" if value is None else str(value) for key, value in found[0].items()}
    line = metagpt_table([shown]).splitlines()[-1]
    assert "| a way | 2 [2, 2] | 1.00 [1.00, 1.00] | 2.00 [2.00, 2.00] | 6 | 10 |" in line
